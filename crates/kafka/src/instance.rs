//! The name of this process in its consumer group.
//!
//! Transactional ids are made of it. Two live processes with one name fence each other; a restart under the same name ends
//! the open transaction of its predecessor at once, under another name the brokers' time-out does. So without `--instance`
//! the name is the host's and a number: the first one whose lock file no live process has locked.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::client_id::ClientId;
use crate::{Error, MemberArgs};

/// Numbers that one host has for the processes of one group. Members beyond the topic's partitions have nothing to do, so
/// no host needs as many; it bounds the search in a folder in which another user has taken all.
const SLOTS_MAX: u32 = 256;

/// The folder of the lock files, in the machine's folder for temporary files. systemd-tmpfiles removes nothing there that is
/// locked (tmpfiles.d(5)). `$XDG_RUNTIME_DIR` would be another one for each user, and is removed when its user logs out,
/// although processes may go on.
const FOLDER: &str = "cart-instances";

/// Most characters of a group's name in a file's name, which has at most 255 bytes. Groups that share a file share
/// numbers, which does no harm.
const FILE_NAME_LEN_MAX: usize = 200;

/// This process in its consumer group. Keep it, or a clone, for as long as the process works: it holds the name's lock file.
#[derive(Debug, Clone)]
pub struct Instance {
    group: String,
    name: String,
    session_timeout: Duration,
    _lock: Option<Arc<File>>,
}

impl Instance {
    /// Takes the name that `--instance` gives, or a free one of this host, and logs it. `group` is the full name.
    ///
    /// # Errors
    /// When all names of this host are in use.
    pub fn of(args: &MemberArgs, group: String) -> Result<Self, Error> {
        let session_timeout = args.session_timeout();
        let instance = match args.instance.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => Self::named(name, group, session_timeout),
            None => {
                let (name, lock) = free_name(&std::env::temp_dir().join(FOLDER), &host_name(), &group)?;
                Self { group, name, session_timeout, _lock: lock.map(Arc::new) }
            }
        };
        tracing::info!(group = instance.group, instance = instance.name, "this process's name in its group");
        Ok(instance)
    }

    /// With a given name. It takes no number and locks no file: that given names differ is up to their giver.
    #[must_use]
    pub fn named(name: &str, group: String, session_timeout: Duration) -> Self {
        Self { group, name: name.to_owned(), session_timeout, _lock: None }
    }

    /// The name, such as `myhost-0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The group's full name.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// `<group>-<name>`: what transactional ids are made of.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.group, self.name)
    }

    pub(crate) fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    pub(crate) fn client_id(&self, worker: u16) -> ClientId {
        ClientId { instance: self.name.clone(), worker, host: host_name(), pid: std::process::id() }
    }
}

/// This host's name; in a container the container's or the pod's.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { String::from("localhost") } else { name }
}

/// The first free name of this host, with its locked file. The host's name alone where no file can be locked, as in a
/// container whose files are read-only.
fn free_name(folder: &Path, host: &str, group: &str) -> Result<(String, Option<File>), Error> {
    match free_slot(folder, group) {
        Ok(Some((slot, lock))) => Ok((format!("{host}-{slot}"), Some(lock))),
        Ok(None) => Err(Error::fatal(
            format!("naming this process in group {group}"),
            format!(
                "all {SLOTS_MAX} names of host {host} are in use (lock files in {}); set --instance",
                folder.display()
            ),
        )),
        Err(error) => {
            tracing::info!(
                folder = %folder.display(),
                %error,
                "no lock file can be created: set --instance if another process of this group runs on this host"
            );
            Ok((host.to_owned(), None))
        }
    }
}

/// The first number whose file no live process has locked, with that file, locked; `None` when all are taken.
///
/// Other users may have put anything into the folder. Nothing is read or written there, no link is followed, and what can't
/// be opened counts as taken.
fn free_slot(folder: &Path, group: &str) -> io::Result<Option<(u32, File)>> {
    make_folder(folder)?;
    let group = file_name(group);
    for slot in 0..SLOTS_MAX {
        let path = folder.join(format!("{group}.{slot}"));
        // NONBLOCK: a pipe would be waited for.
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => File::from(file),
            Err(_) if path.symlink_metadata().is_ok() => continue,
            Err(error) => return Err(error.into()),
        };
        match file.try_lock() {
            Ok(()) => return Ok(Some((slot, file))),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Each user may add files and remove only their own, as in the folder around it.
const SHARED: u32 = 0o1777;

fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(SHARED)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.symlink_metadata()?.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The group's name with `_` for what a file's name had better not have. Groups may have names of any characters.
fn file_name(group: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    group.chars().map(plain).take(FILE_NAME_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    const GROUP: &str = "test-cart-processor";

    /// A place for a folder, empty at first; removed at the end.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cart-instances-{test}-{}", std::process::id()));
            fs::create_dir(&path).expect("a folder");
            Self(path)
        }

        fn folder(&self) -> PathBuf {
            self.0.join(FOLDER)
        }

        fn name(&self, group: &str) -> (String, Option<File>) {
            free_name(&self.folder(), "myhost", group).expect("a name")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn two_at_once_have_different_names_and_a_restart_has_the_same() {
        let place = Place::new("two");
        let (first, first_lock) = place.name(GROUP);
        let (second, _second_lock) = place.name(GROUP);
        assert_eq!([&*first, &*second], ["myhost-0", "myhost-1"]);
        drop(first_lock);
        let (restarted, _lock) = place.name(GROUP);
        assert_eq!(restarted, "myhost-0");
    }

    #[test]
    fn installations_have_separate_numbers() {
        let place = Place::new("installations");
        let names = ["a-cart-processor", "b-cart-processor", "a/b"].map(|group| place.name(group));
        assert!(names.iter().all(|(name, lock)| name == "myhost-0" && lock.is_some()));
    }

    #[test]
    fn without_a_place_for_files_the_name_is_the_hosts() {
        let place = Place::new("no_place");
        // A file where the folder would be: root, too, can make none there.
        fs::write(place.folder(), "").expect("a file");
        let (name, lock) = place.name(GROUP);
        assert_eq!(name, "myhost");
        assert!(lock.is_none());
    }

    #[test]
    fn a_link_to_a_folder_is_no_place() {
        let place = Place::new("linked_folder");
        symlink(&place.0, place.folder()).expect("a link");
        assert_eq!(place.name(GROUP).0, "myhost");
    }

    #[test]
    fn what_cannot_be_opened_is_taken() {
        let place = Place::new("planted");
        fs::create_dir(place.folder()).expect("a folder");
        let target = place.0.join("target");
        symlink(&target, place.folder().join(format!("{GROUP}.0"))).expect("a link");
        fs::create_dir(place.folder().join(format!("{GROUP}.1"))).expect("a folder");
        let (name, _lock) = place.name(GROUP);
        assert_eq!(name, "myhost-2");
        assert!(!target.exists(), "the link was followed");
    }

    #[test]
    fn numbers_are_bounded() {
        let place = Place::new("bounded");
        let locks: Vec<_> = (0..SLOTS_MAX).map(|_| place.name(GROUP)).collect();
        assert_eq!(locks.last().map(|(name, _)| name.as_str()), Some("myhost-255"));
        assert!(free_name(&place.folder(), "myhost", GROUP).is_err());
    }

    #[test]
    fn a_given_name_is_taken_as_it_is_and_takes_no_number() {
        let args = MemberArgs { instance: Some(String::from("blue")), session_timeout_ms: 10_000 };
        let instance = Instance::of(&args, String::from(GROUP)).expect("a name");
        assert_eq!(instance.full_name(), "test-cart-processor-blue");
        assert!(instance._lock.is_none());
    }

    #[test]
    fn a_groups_name_is_a_files_name() {
        assert_eq!(file_name("demo_1-cart-processor"), "demo_1-cart-processor");
        assert_eq!(file_name("../ä b"), "..___b");
        assert_eq!(file_name(&"x".repeat(300)).len(), FILE_NAME_LEN_MAX);
    }
}
