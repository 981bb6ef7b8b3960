"""Writes a page to a file, in a write() that stands still in the kernel until it is let go; asked line by line.

argv: the file. Its stamp is set when the write begins; the page that it writes from comes into being later.
"""
import ctypes, fcntl, mmap, os, platform, struct, sys, threading

PAGE = 4096
API, REGISTER, COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03
libc = ctypes.CDLL(None, use_errno=True)
faults = libc.syscall({"x86_64": 323, "aarch64": 282}[platform.machine()], os.O_CLOEXEC)
assert faults >= 0, os.strerror(ctypes.get_errno())
fcntl.ioctl(faults, API, struct.pack("<QQQ", 0xAA, 0, 0))
absent = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(absent))
fcntl.ioctl(faults, REGISTER, struct.pack("<QQQQ", address, PAGE, 1, 0))
file = os.open(sys.argv[1], os.O_WRONLY)


def write():
    assert libc.pwrite(file, ctypes.c_void_p(address), ctypes.c_size_t(PAGE), ctypes.c_long(0)) == PAGE


writer = threading.Thread(target=write)
writer.start()
os.read(faults, 32)
print("stalled", flush=True)
sys.stdin.readline()
page = ctypes.create_string_buffer(b"n" * PAGE, PAGE)
fcntl.ioctl(faults, COPY, struct.pack("<QQQQq", address, ctypes.addressof(page), PAGE, 0, 0))
writer.join()
print("written", flush=True)
