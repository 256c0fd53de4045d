//! The power goes: an ext4 file system in a loop image is stopped by its shutdown ioctl without
//! flushing its log, then mounted again. Kinder than a real cut on a drive with a volatile cache.
//! Needs root and loop devices. `CALLPOST_JOURNAL_POWER_CUTS` for more of them.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::crash::{CHILD, Talk, Told, command};

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`, through perl: it takes no unsafe code here.
const SHUTDOWN: &str = r#"open(my $file, "<", $ARGV[0]) or die "open: $!";
my $flag = pack("I", 2);
ioctl($file, 0x8004587d, $flag) or die "ioctl: $!";"#;

struct Disk {
    directory: tempfile::TempDir,
    mounted: bool,
}

impl Disk {
    fn make() -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        std::fs::create_dir(directory.path().join("mount")).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0"]).arg(&image))?;
        let mut disk = Self { directory, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    fn mount(&mut self) -> Result<(), String> {
        let image = self.directory.path().join("image");
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        run(Command::new("umount").arg(self.path()))?;
        self.mounted = false;
        Ok(())
    }

    fn cut(&self) -> Result<(), String> {
        run(Command::new("perl").args(["-e", SHUTDOWN]).arg(self.path().join("stays")))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("{:?}: {error}", command.get_program())),
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let cuts: u64 = std::env::var("CALLPOST_JOURNAL_POWER_CUTS").map_or(20, |text| text.parse().unwrap());
    let mut disk = match Disk::make() {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no file system in a loop image: {why}"),
    };
    std::fs::write(disk.path().join("stays"), "x").unwrap();
    if let Err(why) = disk.cut() {
        return println!("skipped: no shutdown of a file system: {why}");
    }
    disk.unmount().unwrap();
    disk.mount().unwrap();
    std::fs::write(disk.path().join("stays"), "x").unwrap();
    std::fs::File::open(disk.path()).unwrap().sync_all().unwrap();
    let journal = disk.path().join("journal");
    let mut told = Told::default();
    let mut random = crc32c::crc32c(disk.path().as_os_str().as_encoded_bytes());
    for round in 0..cuts {
        random = crc32c::crc32c(&random.to_le_bytes());
        let mut child = command(CHILD, &journal, round).stderr(std::process::Stdio::null()).spawn().unwrap();
        let talk = Talk::of(&mut child);
        talk.let_live(round, Duration::from_millis(50 + u64::from(random % 400)));
        assert!(child.try_wait().unwrap().is_none(), "the child failed");
        disk.cut().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        told.take(&talk.all());
        disk.unmount().unwrap();
        disk.mount().unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(told.settle_accounts(&journal));
    println!("{cuts} power cuts, {} acknowledged, {} settled", told.appended.len(), told.settled.len());
    disk.unmount().unwrap();
}
