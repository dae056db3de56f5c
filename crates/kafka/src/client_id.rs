//! How a member of a group names itself to the brokers.

use std::fmt;

/// A worker of a process, as the `client.id` of its consumer: `<instance>-<worker>@<host>:<pid>`.
///
/// Brokers show it with the group's members and in their logs, so that a member can be traced to its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientId {
    pub(crate) instance: String,
    pub(crate) worker: u16,
    pub(crate) host: String,
    pub(crate) pid: u32,
}

impl ClientId {
    /// `None` for the id of another program.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // From the right: an instance's name may have any character.
        let (member, process) = text.rsplit_once('@')?;
        let (instance, worker) = member.rsplit_once('-')?;
        let (host, pid) = process.rsplit_once(':')?;
        Some(Self {
            instance: instance.to_owned(),
            worker: worker.parse().ok()?,
            host: host.to_owned(),
            pid: pid.parse().ok()?,
        })
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, worker, host, pid } = self;
        write!(f, "{instance}-{worker}@{host}:{pid}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_writes() {
        for instance in ["0", "myhost-0", "a@b:c-d", ""] {
            let id = ClientId { instance: instance.to_owned(), worker: 3, host: String::from("myhost"), pid: 4711 };
            assert_eq!(ClientId::parse(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn ignores_client_ids_of_other_programs() {
        for text in ["rdkafka", "consumer-1@host", "a-1@host:x", "a-x@host:1", "a@host:1", "a-1:1", ""] {
            assert_eq!(ClientId::parse(text), None, "{text}");
        }
    }
}
