//! The limit of open files: each connection of a client is one.

use rustix::io;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open beside the connections of clients: connections to brokers, to Cassandra's shards, to the registry and the issuer,
/// and what the runtime and librdkafka need for themselves.
const OTHER_FILES: u64 = 500;

/// Raises the soft limit of open files to the hard one, and warns if `connections_max` needs more. Supervisors leave the soft limit at
/// 1,024, as containerd 2 does: a program that does not use `select` raises it itself.
pub(crate) fn raise_open_files(connections_max: u32) {
    if let Err(error) = raise() {
        tracing::warn!(%error, "raising the soft limit of open files to the hard one failed; the soft limit stays");
    }
    let limit = getrlimit(Resource::Nofile).current;
    if let Some(needed) = needed_beyond(limit, connections_max) {
        tracing::warn!(
            ?limit,
            needed,
            "the limit of open files is too low for --connections-max, so clients may wait for a connection: raise the hard limit \
             (LimitNOFILE, ulimit -Hn), or lower --connections-max"
        );
    }
}

fn raise() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
}

/// How many files are needed, if the limit is lower. `None` as a limit means that there is none.
fn needed_beyond(limit: Option<u64>, connections_max: u32) -> Option<u64> {
    let needed = u64::from(connections_max) + OTHER_FILES;
    (needed > limit?).then_some(needed)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap();
        setrlimit(Resource::Nofile, Rlimit { current: Some(hard - 1), maximum: Some(hard) }).unwrap();
        raise().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, Some(hard));
    }

    #[test]
    fn a_limit_that_the_connections_exceed_is_reported() {
        assert_eq!(needed_beyond(Some(1_024), 10_000), Some(10_500));
        assert_eq!(needed_beyond(Some(10_499), 10_000), Some(10_500));
        assert_eq!(needed_beyond(Some(10_500), 10_000), None);
        assert_eq!(needed_beyond(None, 10_000), None);
    }
}
