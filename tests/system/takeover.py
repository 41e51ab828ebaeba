"""Does what an attacker does who has taken a process over: makes system calls of their choice from
inside of it, under everything that confines it, be it the unit's or the program's own doing.

A tracer stops the process, points it at a `syscall` instruction of its own memory with arguments of the
test's, and reads what the kernel of the machine answers. The process goes on afterwards as if nothing
had been. Or it is made to panic: where it enters a function of the test's choice, it enters instead the one
with which Rust's core library complains of a bad slice, with a text of the process's own memory.

Absent on purpose: what an answer should be. x86-64 only: elsewhere it raises, and nothing is skipped.
"""

import ctypes
import errno
import fcntl
import functools
import os
import platform
import signal
import socket
import struct
import subprocess
from pathlib import Path

from boot import until

SYSCALL = b"\x0f\x05"
# asm/unistd_64.h
NR = {
    "read": 0, "open": 2, "close": 3, "socket": 41, "connect": 42, "bind": 49, "execve": 59, "kill": 62,
    "ptrace": 101, "mount": 165, "openat": 257, "unshare": 272, "process_vm_readv": 310, "bpf": 321,
    "execveat": 322, "shutdown": 48, "listen": 50, "setsockopt": 54, "fcntl": 72, "dup": 32, "ioctl": 16,
    "mmap": 9, "io_uring_setup": 425, "fork": 57, "clone": 56, "symlink": 88, "mprotect": 10,
    "sendmsg": 46, "getsockname": 51, "pidfd_getfd": 438, "fallocate": 285,
}  # fmt: skip

PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_CONT = 12, 13, 7
PTRACE_SINGLESTEP, PTRACE_DETACH = 9, 17
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000
AT_FDCWD = -100
# asm-generic/fcntl.h, asm-generic/ioctls.h
F_SETOWN, F_SETSIG, F_SETOWN_EX = 8, 10, 15
FIONBIO = 0x5421
BREAKPOINT = b"\xcc"
# Where a panic of the test's own says that it is.
PANIC_PLACE = "tests/system/takeover.rs:71:13"
PANIC_FUNCTION = "core::str::slice_error_fail"
BREAK_LIMIT_S = 20
REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base "
    "gs_base ds es fs gs"
).split()

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in REGISTERS]


class Ended(Exception):
    """The process was killed for what it was made to do; the signal's number."""


def _ptrace(request, pid, address=None, data=None):
    if libc.ptrace(request, pid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x}: {os.strerror(number)}")


def memory_of(pid):
    """What a process has in its memory, as root reads it from outside: (address, bytes) of each region."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if "r" not in rights or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            first, end = (int(number, 16) for number in span.split("-"))
            try:
                memory.seek(first)
                yield first, memory.read(end - first)
            except OSError:
                continue


def borrow_socket(pid, fd):
    """A socket of another process, taken by root from outside: the same one."""
    handle = os.pidfd_open(pid)
    try:
        number = libc.syscall(NR["pidfd_getfd"], handle, fd, 0)
        if number < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        return socket.socket(fileno=number)
    finally:
        os.close(handle)


@functools.cache
def symbols(program):
    """Where each function begins, in a program's file that has its symbols."""
    listed = subprocess.run(["nm", "-C", program], capture_output=True, text=True, check=True).stdout
    return {line[19:]: int(line[:16], 16) for line in listed.splitlines() if line[17:18] in "tT"}


class Takeover:
    """A stopped process (its number out here) that makes calls for the test. A context manager."""

    def __init__(self, pid):
        if platform.machine() != "x86_64":
            raise NotImplementedError("takeover.py knows x86-64 alone")
        self.pid = pid

    def __enter__(self):
        _ptrace(PTRACE_SEIZE, self.pid)
        _ptrace(PTRACE_INTERRUPT, self.pid)
        self._wait()
        self.before = Registers()
        _ptrace(PTRACE_GETREGS, self.pid, None, ctypes.byref(self.before))
        self.memory = open(f"/proc/{self.pid}/mem", "r+b", buffering=0)
        self.instruction = self._find_syscall()
        self.alive = True
        self.armed = None
        return self

    def __exit__(self, *_):
        if self.alive and self.armed:
            # The test gave up. Left as it is, it would end at the breakpoint.
            _ptrace(PTRACE_INTERRUPT, self.pid)
            self._wait()
            _ptrace(PTRACE_GETREGS, self.pid, None, ctypes.byref(self.before))
            self._disarm()
        self.memory.close()
        if self.alive:
            _ptrace(PTRACE_SETREGS, self.pid, None, ctypes.byref(self.before))
            _ptrace(PTRACE_DETACH, self.pid)

    def _wait(self):
        _, status = os.waitpid(self.pid, WALL)
        if not os.WIFSTOPPED(status):
            self.alive = False
            raise Ended(os.WTERMSIG(status) if os.WIFSIGNALED(status) else status)
        return os.WSTOPSIG(status)

    def _find_syscall(self):
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            if "x" not in mode or "[vsyscall]" in line:
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            self.memory.seek(start)
            at = self.memory.read(min(end - start, 4 << 20)).find(SYSCALL)
            if at >= 0:
                return start + at
        raise RuntimeError(f"process {self.pid} has no syscall instruction in its memory")

    def call(self, name, *arguments):
        """The result of a system call, negative errors as the kernel gives them. Bytes are passed by
        address."""
        at = self.before.rsp - 16384 & ~0xF
        values = []
        for argument in arguments:
            if isinstance(argument, bytes):
                self.memory.seek(at)
                self.memory.write(argument + b"\0")
                values.append(at)
                at += len(argument) + 16 & ~0xF
            else:
                values.append(argument & 0xFFFF_FFFF_FFFF_FFFF)
        values += [0] * (6 - len(values))
        asked = Registers.from_buffer_copy(self.before)
        # What it was waiting in is not begun again behind our back.
        asked.orig_rax = 0xFFFF_FFFF_FFFF_FFFF
        asked.rax, asked.rip = NR[name], self.instruction
        asked.rdi, asked.rsi, asked.rdx, asked.r10, asked.r8, asked.r9 = values
        _ptrace(PTRACE_SETREGS, self.pid, None, ctypes.byref(asked))
        self._step()
        answered = Registers()
        _ptrace(PTRACE_GETREGS, self.pid, None, ctypes.byref(answered))
        return ctypes.c_longlong(answered.rax).value

    def _step(self):
        _ptrace(PTRACE_SINGLESTEP, self.pid)
        while (got := self._wait()) != signal.SIGTRAP:
            # A signal of its own: it would run its handler; a refused call's ends it.
            _ptrace(PTRACE_SINGLESTEP, self.pid, None, got if got == signal.SIGSYS else 0)

    def error(self, name, *arguments):
        """The name of the error that a call got (ENOENT, …); None where it worked. `SIGSYS`: killed."""
        try:
            result = self.call(name, *arguments)
        except Ended as ended:
            return signal.Signals(ended.args[0]).name
        return errno.errorcode.get(-result, str(result)) if -4096 < result < 0 else None

    # -- panics ------------------------------------------------------------------------------------

    def arm(self, program, function):
        """Lets it go on until it enters a function of its program, whose file with symbols is given."""
        name = Path(program).name
        lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        base = min(int(line.split("-")[0], 16) for line in lines if line.endswith(f"/{name}"))
        self.complaint = base + symbols(program)[PANIC_FUNCTION]
        self.armed = base + symbols(program)[function]
        # Asked for now: there, its registers are those of a call that is under way.
        self.room = self.call("mmap", 0, 4096, 3, 0x22, -1, 0)
        self.memory.seek(self.armed)
        self.replaced = self.memory.read(len(BREAKPOINT))
        self._poke(self.armed, BREAKPOINT)
        _ptrace(PTRACE_SETREGS, self.pid, None, ctypes.byref(self.before))
        _ptrace(PTRACE_CONT, self.pid)

    def panic(self, text, planted=False):
        """Waits until it is there; then it goes on as if the code there had cut a string of its memory
        badly, one that begins with `text`. A planted text is put there for the purpose."""
        until(self._is_there, BREAK_LIMIT_S, "the armed function is entered", pause_s=0.001)
        self._disarm()
        file, line, column = PANIC_PLACE.rsplit(":", 2)
        # core::panic::Location
        place = struct.pack("<QQII", self.room + 64, len(file), int(line), int(column))
        self._poke(self.room, place.ljust(64, b"\0") + file.encode() + b"\0")
        at = self.room + 1024
        if planted:
            self._poke(at, text.encode())
        else:
            at = self._find(text.encode())
        # fn slice_error_fail(s: &str, begin: usize, end: usize) -> !, with its caller's place at the end.
        length = len(text.encode())
        registers = self.before
        registers.rip, registers.orig_rax = self.complaint, 0xFFFF_FFFF_FFFF_FFFF
        registers.rdi, registers.rsi, registers.rdx, registers.rcx = at, length, length, 0
        registers.r8 = self.room

    def _is_there(self):
        """Whether it stopped at the breakpoint; signals of its own are let through."""
        done, status = os.waitpid(self.pid, WALL | os.WNOHANG)
        if not done:
            return False
        if not os.WIFSTOPPED(status):
            self.alive = False
            raise Ended(os.WTERMSIG(status) if os.WIFSIGNALED(status) else status)
        _ptrace(PTRACE_GETREGS, self.pid, None, ctypes.byref(self.before))
        if os.WSTOPSIG(status) == signal.SIGTRAP and self.before.rip == self.armed + 1:
            return True
        event = status >> 16
        _ptrace(PTRACE_CONT, self.pid, None, 0 if event else os.WSTOPSIG(status))
        return False

    def _disarm(self):
        self._poke(self.armed, self.replaced)
        self.armed = None

    def _poke(self, at, data):
        self.memory.seek(at)
        self.memory.write(data)

    def _find(self, text):
        for first, data in memory_of(self.pid):
            if (at := data.find(text)) >= 0:
                return first + at
        raise RuntimeError(f"process {self.pid} does not have {text!r} in its memory")

    # -- what attackers would try ------------------------------------------------------------------

    def open_error(self, path):
        return self.error("openat", AT_FDCWD, path.encode(), os.O_RDONLY, 0)

    def unix_error(self, path):
        """Connecting to a Unix socket."""
        return self._connect(socket.AF_UNIX, self._unix(path))

    def flood_unix(self, path, most=20_000):
        """Connects to a Unix socket until it takes no more; how many connections are held now, and why
        there are not more (EAGAIN: its queue is full too)."""
        address = self._unix(path)
        for held in range(most):
            handle = self.call("socket", socket.AF_UNIX, socket.SOCK_STREAM | os.O_NONBLOCK, 0)
            if handle < 0:
                return held, errno.errorcode[-handle]
            if error := self.error("connect", handle, address, len(address)):
                return held, error
        return most, None

    def fill(self, directory, most=1 << 34):
        """Takes room in a directory, in files of its own, fill-N, until it gets no more; how many bytes it has
        now, and why they are not more. Files are as large as they may be."""
        held = number = 0
        size = 1 << 30
        while held < most:
            handle = self.call("openat", AT_FDCWD, f"{directory}/fill-{number}".encode(), os.O_RDWR | os.O_CREAT, 0o600)
            if handle < 0:
                return held, errno.errorcode[-handle]
            error = self.error("fallocate", handle, 0, 0, size)
            while error and size > 4096:
                size //= 2
                error = self.error("fallocate", handle, 0, 0, size)
            self.call("close", handle)
            if error:
                return held, error
            held, number = held + size, number + 1
        return held, None

    def _unix(self, path):
        return struct.pack("<H", socket.AF_UNIX) + path.encode() + b"\0"

    def tcp_error(self, host, port):
        address = struct.pack("<H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host)
        return self._connect(socket.AF_INET, address + bytes(8))

    def _connect(self, family, address):
        handle = self.call("socket", family, socket.SOCK_STREAM, 0)
        if handle < 0:
            return "socket: " + errno.errorcode[-handle]
        error = self.error("connect", handle, address, len(address))
        self.call("close", handle)
        return error

    def end_listener(self, fd):
        """What would close a listening socket for all who share it, or change it for them; each by its error."""
        no_family = struct.pack("<H", socket.AF_UNSPEC) + bytes(14)
        return {
            "shut": self.error("shutdown", fd, socket.SHUT_RDWR),
            "shut for reading": self.error("shutdown", fd, socket.SHUT_RD),
            "connected to nothing": self.error("connect", fd, no_family, len(no_family)),
            "made to wait": self.error("fcntl", fd, fcntl.F_SETFL, 0),
            "made to wait by ioctl": self.error("ioctl", fd, FIONBIO, struct.pack("<i", 0)),
            "shortened": self.error("listen", fd, 0),
            "set": self.error("setsockopt", fd, socket.SOL_SOCKET, socket.SO_RCVBUF, struct.pack("<i", 1), 4),
            "another number": self.error("dup", fd),
            "another number by fcntl": self.error("fcntl", fd, fcntl.F_DUPFD, 0),
            "passed on": self.error("sendmsg", fd, bytes(56), 0),
        }

    def signal_error(self, victim):
        """Has the kernel send SIGKILL to another process when something comes on a descriptor."""
        pair = self.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
        errors = {
            "owner": self.error("fcntl", pair, F_SETOWN, victim),
            "owner of a kind": self.error("fcntl", pair, F_SETOWN_EX, struct.pack("<ii", 1, victim)),
            "signal": self.error("fcntl", pair, F_SETSIG, signal.SIGKILL),
            "asked": self.error("fcntl", pair, fcntl.F_SETFL, os.O_ASYNC),
        }
        self.call("close", pair)
        return errors

    def exec_error(self, path):
        """Turns the process into another program, if that works."""
        return self.error("execve", path.encode(), 0, 0)
