//! The servers' processes on this machine: who listens on their ports.

use std::collections::HashSet;
use std::fs;

use super::meter::Meter;

/// A listening socket's state in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Adds the servers that run on this machine, as processes that can be seen from here, to the meter.
pub(crate) fn watch(meter: &mut Meter, addresses: &[(&str, String)]) {
    for (name, address) in addresses {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        for pid in port.map(listeners).unwrap_or_default() {
            meter.add(name, pid, *name == "postgres");
        }
    }
}

/// The processes that listen on a port. Of PostgreSQL and its children, which share the socket, the first.
fn listeners(port: u16) -> Vec<u32> {
    let sockets: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let has_one = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .any(|target| target.to_str().is_some_and(|target| sockets.contains(target)))
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.retain(has_one);
    pids.sort_unstable();
    pids.truncate(1);
    pids
}

fn inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        (local.ends_with(&suffix) && state == LISTEN).then(|| fields.nth(5).map(str::to_owned))?
    };
    table.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        assert_eq!(listeners(port), [std::process::id()]);
    }
}
