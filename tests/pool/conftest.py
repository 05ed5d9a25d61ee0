from tests.asyncio_.coroutine_tests import loop_kind, pytest_generate_tests, pytest_pyfunc_call

__all__ = ['loop_kind', 'pytest_generate_tests', 'pytest_pyfunc_call']
