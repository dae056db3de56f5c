//! Where the threads of a process stand: for a process that should have done something and did not.

use std::process::Command;

use procfs::ProcResult;

/// Each thread's stack, by gdb; where that is not to be had, what the kernel tells of each thread.
pub(super) fn stacks(pid: u32) -> String {
    let pid_text = pid.to_string();
    let gdb =
        Command::new("gdb").args(["-nx", "-batch", "-ex", "thread apply all backtrace", "-p", &pid_text]).output();
    let told = gdb.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // It ends well also when there was nothing to look at.
    if told.contains("#0 ") {
        return told;
    }
    threads(pid).unwrap_or_else(|error| format!("process {pid}: {error}"))
}

/// Name and state of each thread, and the function of the kernel that it waits in.
fn threads(pid: u32) -> ProcResult<String> {
    let mut told = String::new();
    for thread in procfs::process::Process::new(pid.cast_signed())?.tasks()? {
        let thread = thread?;
        let stat = thread.stat()?;
        let wchan = std::fs::read_to_string(format!("/proc/{pid}/task/{}/wchan", thread.tid)).unwrap_or_default();
        told += &format!("{} {}: {} in {wchan}\n", thread.tid, stat.comm, stat.state);
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_is_told() {
        let told = threads(std::process::id()).expect("this process has threads");
        assert!(told.contains(&format!("{} ", std::process::id())), "{told}");
        assert!(stacks(u32::MAX).contains("4294967295"), "there is no such process");
    }
}
