cdef struct Checks:
    Chain pending       # [core] entries that are CHECKING, whose check has not begun
    int running         # [core] how many checks of the pool have begun and not ended
