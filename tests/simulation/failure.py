"""What a simulated run that broke a rule ends with."""


class SimulationError(AssertionError):
    """A run has broken a rule of the pool; the same seed breaks it again at the same step.

    :param seed: of the run
    :param step: the number of the step after which it was noticed, from 1 on
    :param rule: which rule, and what was seen
    """

    def __init__(self, seed: int, step: int, rule: str):
        super().__init__(f'seed {seed}, step {step}: {rule}')
        self.seed = seed
        self.step = step
        self.rule = rule
