# One request by io_uring, by hand: no library is needed. `submit` answers its result.
import ctypes, mmap, os, socket, struct, sys


def submit(opcode, fd, offset, address, length):
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 4, params)
    if ring < 0:
        sys.exit("io_uring_setup: " + os.strerror(ctypes.get_errno()))
    numbers = struct.unpack_from("30I", params)
    sq_entries, cq_entries = numbers[0], numbers[1]
    sq_tail, sq_array = numbers[11], numbers[16]
    cq_cqes = numbers[25]
    size = max(sq_array + sq_entries * 4, cq_cqes + cq_entries * 16)
    rings = mmap.mmap(ring, size, offset=0)
    entries = mmap.mmap(ring, sq_entries * 64, offset=0x10000000)
    entry = struct.pack("<BBHiQQIIQ", opcode, 0, 0, fd, offset, address, length, 0, 7)
    entries[0:len(entry)] = entry
    rings[sq_array:sq_array + 4] = struct.pack("<I", 0)
    rings[sq_tail:sq_tail + 4] = struct.pack("<I", 1)
    if libc.syscall(426, ring, 1, 1, 1, None, 0) != 1:
        sys.exit("io_uring_enter: " + os.strerror(ctypes.get_errno()))
    user, result, flags = struct.unpack_from("<QiI", rings, cq_cqes)
    assert user == 7, user
    return result


