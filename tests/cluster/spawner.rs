//! One thread that starts every process of this harness.
//!
//! On Linux, a child asks the kernel to kill it when its parent dies, and for the kernel the parent is the *thread* that
//! started it. A test's thread ends with the test, so this thread lives as long as the program.

use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;

struct Order {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// Starts a program that ends when this process ends.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    prepare(&mut command);
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for Order { mut command, reply } in orders {
                // If nobody waits for the reply any more, the child is dropped and ends with this process.
                drop(reply.send(command.spawn()));
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(Order { command, reply })
        .map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "the two system calls between fork and exec are async-signal-safe and allocate nothing"
)]
fn prepare(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only `prctl(PR_SET_PDEATHSIG)` and `signal` are called.
    unsafe {
        command.pre_exec(|| {
            // Exceeding the file size limit must be an error for the program and not end it (see `limit_file_size`).
            if libc::signal(libc::SIGXFSZ, libc::SIG_IGN) == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                .map_err(io::Error::from)
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn prepare(_: &mut Command) {}
