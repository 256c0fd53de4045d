//! The commands' socket: who may open it, and who may speak once it is open.
//!
//! Its mode is 0660 from the moment it exists: on Linux a socket's file takes the mode that was set
//! on the socket before it was bound, less the umask (unix(7), `unix_bind_bsd`). Who connects has
//! passed that check of the kernel; the peer's credentials are looked at as well, because a
//! connection can be handed on, and a mode can be changed by mistake.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::time::timeout;

use super::server::ApiError;

/// Owner and group may read and write: to speak with it.
const MODE: u32 = 0o660;
/// The group whose members may give commands.
const GROUP: &str = "callpost";
/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;
/// An agent that is alive accepts at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The socket, bound; its file goes when this goes, if it is still this one.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of its file.
    file: (u64, u64),
    owner: u32,
    group: u32,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // a newer agent's socket is not ours to remove
        if fs::symlink_metadata(&self.path).is_ok_and(|about| (about.dev(), about.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// Binds it; a file that a dead agent left is replaced.
    pub(super) async fn bind(path: &Path) -> Result<Self, ApiError> {
        let failed = |why: io::Error| ApiError::Io { path: path.to_owned(), why: why.to_string() };
        remove_stale(path).await?;
        let socket = UnixSocket::new_stream().map_err(failed)?;
        let handle = File::from(socket.as_fd().try_clone_to_owned().map_err(failed)?);
        handle.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
        socket.bind(path).map_err(failed)?;
        if let Some(group) = group_id(GROUP)
            && fs::metadata(path).is_ok_and(|about| about.gid() != group)
        {
            // only root and members may; whoever else runs the agent keeps it among his own
            let _ = std::os::unix::fs::chown(path, None, Some(group));
        }
        // the umask may have taken what the group needs
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
        let about = fs::symlink_metadata(path).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (about.dev(), about.ino()),
            owner: about.uid(),
            group: about.gid(),
        })
    }

    /// Whether the peer may give commands; else what it is told.
    pub(super) fn admit(&self, stream: &UnixStream) -> Result<(), String> {
        let peer = stream.peer_cred().map_err(|why| format!("who asks cannot be told: {why}"))?;
        let facts = Facts {
            owner: self.owner,
            group: self.group,
            narrow: fs::metadata(&self.path).is_ok_and(|about| about.mode() & 0o007 == 0),
        };
        if may_speak(facts, &peer_facts(&peer, self.group)) {
            return Ok(());
        }
        let group = group_name(self.group).unwrap_or_else(|| self.group.to_string());
        Err(format!("user id {} is neither root, nor the agent's user, nor in the group {group}", peer.uid()))
    }
}

/// What a user is called of whom a service with `PrivateUsers=` knows no number (user_namespaces(7)).
const UNMAPPED: u32 = 65_534;

/// What is known of the socket.
#[derive(Clone, Copy, Debug)]
struct Facts {
    owner: u32,
    group: u32,
    /// Nobody else may open it: the kernel has let through owner, group and root alone.
    narrow: bool,
}

/// What is known of who asks.
#[derive(Clone, Debug)]
struct Peer {
    user: u32,
    group: u32,
    /// Whether its process is in the socket's group; `None`: `/proc` hides it from this service.
    by_process: Option<bool>,
    /// Whether `/etc/group` lists it; `None`: its name is not in `/etc/passwd`, but in a directory,
    /// or its number is not known here.
    by_file: Option<bool>,
}

fn may_speak(socket: Facts, peer: &Peer) -> bool {
    if peer.user == 0 || peer.user == socket.owner || peer.group == socket.group {
        return true;
    }
    peer.by_process.or(peer.by_file).unwrap_or(socket.narrow)
}

fn peer_facts(peer: &UCred, group: u32) -> Peer {
    let process = peer.pid().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    Peer {
        user: peer.uid(),
        group: peer.gid(),
        by_process: process.and_then(|status| process_is_in(&status, group)),
        by_file: file_lists(&passwd, &groups, peer.uid(), group),
    }
}

/// The line `Groups:` of `/proc/PID/status`.
fn process_is_in(status: &str, group: u32) -> Option<bool> {
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"))?;
    Some(groups.split_whitespace().any(|number| number.parse() == Ok(group)))
}

/// passwd(5), group(5).
fn file_lists(passwd: &str, groups: &str, user: u32, group: u32) -> Option<bool> {
    if user == UNMAPPED {
        return None;
    }
    let user = user.to_string();
    let field = |line: &'_ str, at: usize| line.split(':').nth(at).map(str::to_owned);
    let name = passwd.lines().find(|line| field(line, 2).as_ref() == Some(&user))?;
    let name = field(name, 0)?;
    let line = groups.lines().find(|line| field(line, 2).as_deref() == Some(group.to_string().as_str()))?;
    Some(line.split(':').nth(3)?.split(',').any(|member| member == name))
}

fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn group_name(id: u32) -> Option<String> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let id = id.to_string();
    let line = groups.lines().find(|line| line.split(':').nth(2) == Some(id.as_str()))?;
    line.split(':').next().map(str::to_owned)
}

/// Removes what an agent left that is not there any more, and nothing else.
async fn remove_stale(path: &Path) -> Result<(), ApiError> {
    let failed = |why: io::Error| ApiError::Io { path: path.to_owned(), why: why.to_string() };
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(failed(why)),
        Ok(about) if !about.file_type().is_socket() => return Err(ApiError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    match timeout(ANSWERS_WITHIN, UnixStream::connect(path)).await {
        Ok(Err(why)) if why.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Ok(Err(why)) if why.kind() == ErrorKind::NotFound => Ok(()),
        Ok(Err(why)) if why.kind() == ErrorKind::PermissionDenied => Err(failed(why)),
        // it listens, though it may be too busy to accept
        Ok(_) | Err(_) => Err(ApiError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    const PASSWD: &str =
        "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:\nana:x:1001:1001::/:\nbeto:x:1002:1002::/:\n";
    const GROUPS: &str = "root:x:0:\ncallpost:x:990:beto,carla\nana:x:1001:\n";

    #[test]
    fn root_the_owner_and_the_group_may_speak_and_nobody_else() {
        let socket = Facts { owner: 995, group: 990, narrow: true };
        let peer = |user, group, by_process| Peer {
            user,
            group,
            by_process,
            by_file: file_lists(PASSWD, GROUPS, user, 990),
        };
        for (peer, may, why) in [
            (peer(0, 0, None), true, "root"),
            (peer(995, 995, None), true, "its owner"),
            (peer(1003, 990, None), true, "its group"),
            (peer(1001, 1001, Some(true)), true, "a further group of the process"),
            (peer(1001, 1001, Some(false)), false, "none of its groups"),
            (peer(1002, 1002, None), true, "a member, its process hidden"),
            (peer(1001, 1001, None), false, "no member, its process hidden"),
            (peer(20_001, 20_001, None), true, "of a directory, let through by the kernel"),
            (
                peer(65_534, 65_534, None),
                true,
                "of no number in this service's namespace, let through likewise",
            ),
        ] {
            assert_eq!(may_speak(socket, &peer), may, "{why}");
        }
        let wide = Facts { narrow: false, ..socket };
        assert!(!may_speak(wide, &peer(20_001, 20_001, None)), "whoever it is: the mode lets all through");
    }

    #[test]
    fn groups_are_read_as_the_kernel_writes_them() {
        let status = "Name:\tsh\nGroups:\t4 27 990 \nVmRSS:\t4 kB\n";
        assert_eq!(process_is_in(status, 990), Some(true));
        assert_eq!(process_is_in(status, 99), Some(false));
        assert_eq!(process_is_in("Name:\tsh\n", 990), None);
    }

    #[tokio::test]
    async fn it_is_never_wider_than_it_should_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = UnixSocket::new_stream().unwrap();
        let handle = File::from(socket.as_fd().try_clone_to_owned().unwrap());
        handle.set_permissions(Permissions::from_mode(MODE)).unwrap();
        socket.bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode & !MODE, 0, "{mode:o} as soon as it is there");
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_a_living_ones_and_other_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("callpost.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        let second = Socket::bind(&path).await.unwrap_err();
        assert!(matches!(&second, ApiError::InUse(_)), "{second}");
        assert_eq!(second.to_string(), format!("{} is in use by another callpost", path.display()));
        drop(socket);
        assert!(!path.exists(), "it goes with its agent");
        fs::write(&path, "precious").unwrap();
        let refused = Socket::bind(&path).await.unwrap_err();
        assert!(refused.to_string().contains("is there and is no socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let missing = Socket::bind(&directory.path().join("none/callpost.sock")).await.unwrap_err();
        assert!(missing.to_string().contains("correct api.socket or the directory's owner"), "{missing}");
    }

    #[tokio::test]
    async fn a_newer_agents_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("callpost.sock");
        let old = Socket::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _new = Socket::bind(&path).await.unwrap();
        drop(old);
        assert!(path.exists());
    }
}
