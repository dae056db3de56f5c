//! Finds the servers' processes on this machine by their ports.

use std::collections::HashSet;

use procfs::net::TcpState;
use procfs::process::all_processes;

use super::meter::Meter;
use crate::harness::sockets;

/// Adds the servers on this machine whose processes are visible to the meter.
pub(crate) fn watch(meter: &mut Meter, addresses: &[(&str, String)]) {
    for (name, address) in addresses {
        if let Some(pid) = at(address) {
            meter.add(name, pid, *name == "postgres");
        }
    }
}

/// The process of the server at an address, if it is visible.
pub(crate) fn at(address: &str) -> Option<u32> {
    let (_, port) = address.rsplit_once(':')?;
    listener(port.parse().ok()?)
}

/// The process that listens on a port; for PostgreSQL, whose children share the socket, the parent.
fn listener(port: u16) -> Option<u32> {
    // Without IPv6 there is no such table.
    let tables = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    let listens = tables.filter(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port);
    let listening: HashSet<u64> = listens.map(|entry| entry.inode).collect();
    // Some processes are not accessible, and one may end meanwhile.
    let processes = all_processes().into_iter().flatten().flatten();
    let with_one = processes.filter(|process| sockets(process).is_ok_and(|own| !own.is_disjoint(&listening)));
    with_one.map(|process| process.pid().cast_unsigned()).min()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn finds_the_listening_process() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        assert_eq!(listener(port), Some(std::process::id()));
    }
}
