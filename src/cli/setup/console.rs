//! Asterisk's console: `asterisk -rx`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Asterisk answers at once, or hangs.
const PATIENCE_SECONDS: &str = "15";
const PLACES: [&str; 3] = ["usr/sbin/asterisk", "usr/local/sbin/asterisk", "usr/bin/asterisk"];

/// The Asterisk that is installed below a root.
#[derive(Clone, Debug)]
pub(super) struct Console {
    root: PathBuf,
    program: PathBuf,
}

impl Console {
    pub fn find(root: &Path) -> Option<Self> {
        let place = PLACES.iter().find(|place| root.join(place).is_file())?;
        Some(Self { root: root.to_path_buf(), program: Path::new("/").join(place) })
    }

    /// Its release series and release, `(22, 10)`; nothing where it cannot be told.
    pub fn version(&self) -> Option<(u32, u32)> {
        release(&self.run("-V", None)?)
    }

    /// What it prints; nothing where none runs.
    pub fn says(&self, line: &str) -> Option<String> {
        self.run("-rx", Some(line))
    }

    fn run(&self, option: &str, line: Option<&str>) -> Option<String> {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE_SECONDS);
        if self.root != Path::new("/") {
            command.arg("chroot").arg(&self.root);
        }
        command.arg(&self.program).arg(option).args(line).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// `Asterisk 22.10.1`. Certified and patched ones count as old, for which everything works too.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().strip_prefix("Asterisk ")?.split(['.', '~', '-', '+', ' ']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_where_it_is_one() {
        assert_eq!(release("Asterisk 22.10.1+dfsg\n"), Some((22, 10)));
        assert_eq!(release("Asterisk 16.28.0~dfsg-0+deb11u4\n"), Some((16, 28)));
        assert_eq!(release("Asterisk certified/18.9-cert5\n"), None);
        assert_eq!(release("Asterisk GIT-master-abc\n"), None);
    }
}
