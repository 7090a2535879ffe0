# System calls that Python has no names for, by their numbers.
import ctypes, errno, mmap, os, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


# Answers the result, or the error as a negative number.
def call(number, *arguments):
    wide = [ctypes.c_long(it) if isinstance(it, int) else it for it in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    return result if result >= 0 else -ctypes.get_errno()


def same(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: {got} instead of {expected}")


# What a rule refuses.
def refused(what, try_it):
    try:
        got = try_it()
    except OSError as error:
        got = -error.errno
    same(what, got, -errno.EPERM)


