//! Which system calls the programs make: one list for all, and what sockets add.
//!
//! On it is what libc, the runtime, SQLite and the allocator call, for files that are open or that
//! Landlock lets be opened, memory, threads, time and signals to oneself. Not on it, whatever a program is
//! made to do: running programs or making processes, other processes' memory, namespaces and mounts,
//! kernel keys, BPF, io_uring, other kinds of sockets, memory that is both written and run. And with listeners
//! that other processes share, whatever would change one: to close it or make it wait is to do so for all.

use std::ops::RangeInclusive;

use nix::libc::{self, c_long};

use crate::Network;

pub(crate) enum Call {
    Free(c_long),
    /// Allowed when all of these hold. Several for one call: any of them.
    If(c_long, Vec<Check>),
}

/// Of one argument, by its index.
#[derive(Clone, Copy)]
pub(crate) enum Check {
    Is(u8, u64),
    Below(u8, u64),
    Above(u8, u64),
    /// Of the bits in `mask`, those in `value` and no others.
    Bits {
        argument: u8,
        mask: u64,
        value: u64,
    },
}

const FILES: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Older forms of calls, which x86-64 has and newer machines never had.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

const PROCESS: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_uname,
];

const SOCKETS: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// The resolver's. They can send a descriptor too, also to oneself, where it has another number.
const MESSAGES: &[c_long] = &[
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
];

/// What changes a socket for all who share it, or gives it another number. The descriptor comes first.
const CHANGES: &[c_long] = &[
    libc::SYS_bind,
    // To an address of no family it ends a listener.
    libc::SYS_connect,
    libc::SYS_dup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_listen,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// Descriptors and locks. Not on it: `F_SETOWN`, `F_SETOWN_EX` and `F_SETSIG`, which have the kernel send
/// any signal to any process of the same user.
const FCNTLS: [i32; 11] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
];

/// What asks about a terminal, and what makes a descriptor wait or not.
const IOCTLS: [u64; 6] = [
    libc::TCGETS,
    // TCGETS2, which newer libcs ask with.
    0x802c_542a,
    libc::TIOCGWINSZ,
    libc::FIONREAD,
    libc::FIONBIO,
    libc::FIOCLEX,
];

const PRCTLS: [i32; 6] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    // The allocator names its mappings.
    libc::PR_SET_VMA,
];

/// All that is allowed; to `listeners`, descriptors that other processes share, nothing that changes them.
pub(crate) fn allowed(network: Network, listeners: Option<&RangeInclusive<u32>>) -> Vec<Call> {
    let mut calls = of(network);
    if let Some(listeners) = listeners {
        calls = calls
            .into_iter()
            .flat_map(|call| beside(call, listeners))
            .collect();
        // Both only look. The runtime and the standard library ask.
        calls.extend(
            [libc::F_GETFD, libc::F_GETFL]
                .map(|command| when(libc::SYS_fcntl, [Check::Is(1, bits(command))])),
        );
    }
    calls
}

/// The same call, on any other descriptor alone where it would change one.
fn beside(call: Call, listeners: &RangeInclusive<u32>) -> Vec<Call> {
    let (number, checks) = match call {
        Call::Free(number) if CHANGES.contains(&number) => (number, Vec::new()),
        Call::If(number, checks) if CHANGES.contains(&number) => (number, checks),
        other => return vec![other],
    };
    let (first, last) = (u64::from(*listeners.start()), u64::from(*listeners.end()));
    let with = |check| Call::If(number, checks.iter().copied().chain([check]).collect());
    vec![with(Check::Below(0, first)), with(Check::Above(0, last))]
}

fn of(network: Network) -> Vec<Call> {
    let mut calls = Vec::new();
    for list in [FILES, OLD, PROCESS] {
        calls.extend(list.iter().map(|&number| Call::Free(number)));
    }
    calls.extend(IOCTLS.map(|number| when(libc::SYS_ioctl, [Check::Is(1, number & 0xffff_ffff)])));
    calls.extend(PRCTLS.map(|option| when(libc::SYS_prctl, [Check::Is(0, bits(option))])));
    calls.extend(FCNTLS.map(|command| when(libc::SYS_fcntl, [Check::Is(1, bits(command))])));
    calls.push(flags());
    calls.extend(threads());
    calls.extend(memory(network));
    if network != Network::None {
        calls.extend(SOCKETS.iter().map(|&number| Call::Free(number)));
        calls.extend(sockets(network));
    }
    calls
}

fn when<const N: usize>(number: c_long, checks: [Check; N]) -> Call {
    Call::If(number, checks.into())
}

fn bits(flags: i32) -> u64 {
    u64::from(flags.cast_unsigned())
}

/// A descriptor's flags, but that the kernel signals what comes.
fn flags() -> Call {
    let set = Check::Is(1, bits(libc::F_SETFL));
    let quiet = Check::Bits {
        argument: 2,
        mask: bits(libc::O_ASYNC),
        value: 0,
    };
    when(libc::SYS_fcntl, [set, quiet])
}

/// Threads of this process, and signals to them alone.
fn threads() -> Vec<Call> {
    let thread = bits(libc::CLONE_THREAD | libc::CLONE_VM);
    let own = u64::from(std::process::id());
    vec![
        when(
            libc::SYS_clone,
            [Check::Bits {
                argument: 0,
                mask: thread,
                value: thread,
            }],
        ),
        when(libc::SYS_tgkill, [Check::Is(0, own)]),
        when(libc::SYS_kill, [Check::Is(0, own)]),
        // One's own limits, read or lowered.
        when(libc::SYS_prlimit64, [Check::Is(0, 0)]),
        when(libc::SYS_prlimit64, [Check::Is(0, own)]),
    ]
}

/// Nothing that was written is run. Only looking names up loads code, from files, while a program runs.
fn memory(network: Network) -> Vec<Call> {
    let (exec, write) = (bits(libc::PROT_EXEC), bits(libc::PROT_WRITE));
    let mut calls = Vec::new();
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        calls.push(when(
            number,
            [Check::Bits {
                argument: 2,
                mask: exec,
                value: 0,
            }],
        ));
    }
    if network == Network::Client {
        calls.push(when(
            libc::SYS_mmap,
            [
                Check::Bits {
                    argument: 2,
                    mask: exec | write,
                    value: exec,
                },
                Check::Bits {
                    argument: 3,
                    mask: bits(libc::MAP_ANONYMOUS),
                    value: 0,
                },
            ],
        ));
    }
    calls
}

fn sockets(network: Network) -> Vec<Call> {
    let unix = bits(libc::AF_UNIX);
    let mut calls = vec![
        when(libc::SYS_socket, [Check::Is(0, unix)]),
        when(libc::SYS_socketpair, [Check::Is(0, unix)]),
    ];
    if network == Network::Client {
        calls.extend(MESSAGES.iter().map(|&number| Call::Free(number)));
        let (stream, datagram) = (bits(libc::SOCK_STREAM), bits(libc::SOCK_DGRAM));
        for family in [libc::AF_INET, libc::AF_INET6] {
            // Without the flags that share the argument; never a raw socket.
            for kind in [stream, datagram] {
                let kind = Check::Bits {
                    argument: 1,
                    mask: 0xf,
                    value: kind,
                };
                calls.push(when(libc::SYS_socket, [Check::Is(0, bits(family)), kind]));
            }
        }
        // Which addresses this machine has, by which a name's are put in order.
        calls.push(when(
            libc::SYS_socket,
            [
                Check::Is(0, bits(libc::AF_NETLINK)),
                Check::Is(2, bits(libc::NETLINK_ROUTE)),
            ],
        ));
    }
    calls
}
