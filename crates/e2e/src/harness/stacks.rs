//! The stacks of the threads of a process, for a process that hangs.

use std::process::Command;

use procfs::ProcResult;

/// Each thread's stack, from gdb; without gdb, the kernel's state of each thread.
pub(super) fn stacks(pid: u32) -> String {
    let pid_text = pid.to_string();
    let gdb =
        Command::new("gdb").args(["-nx", "-batch", "-ex", "thread apply all backtrace", "-p", &pid_text]).output();
    let stacks = gdb.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // gdb also succeeds without any stack.
    if stacks.contains("#0 ") {
        return stacks;
    }
    threads(pid).unwrap_or_else(|error| format!("process {pid}: {error}"))
}

/// The name and state of each thread, and the kernel function in which it waits.
fn threads(pid: u32) -> ProcResult<String> {
    let mut states = String::new();
    for thread in procfs::process::Process::new(pid.cast_signed())?.tasks()? {
        let thread = thread?;
        let stat = thread.stat()?;
        let wchan = std::fs::read_to_string(format!("/proc/{pid}/task/{}/wchan", thread.tid)).unwrap_or_default();
        states += &format!("{} {}: {} in {wchan}\n", thread.tid, stat.comm, stat.state);
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_each_thread() {
        let states = threads(std::process::id()).expect("this process has threads");
        assert!(states.contains(&format!("{} ", std::process::id())), "{states}");
        assert!(stacks(u32::MAX).contains("4294967295"), "there is no such process");
    }
}
