//! Opening the journal: whose it is, who has it, what is in it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::book::Book;
use super::command::Command;
use super::engine::{Fault, sync_directory};
use super::format::FORMAT;
use super::head;
use super::history::{Days, Historian, Job};
use super::kill_point::{KillPoint, reached};
use super::shared::Shared;
use super::types::{JournalError, JournalOptions, Recovered};
use super::witness::{self, WitnessFile};
use super::writer::Writer;

/// Commands that wait for the writer; senders wait when there are more.
const QUEUE: usize = 1024;
/// A process that was just killed may hold its lock a little longer.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Held while this process has the journal.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the lock goes when the file is closed")] File);

/// What a handle is made of.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) jobs: std::sync::mpsc::Sender<Job>,
}

/// Opens or makes the journal and starts its threads.
pub(super) fn open(options: JournalOptions) -> Result<(Opened, Recovered), JournalError> {
    let directory = options.directory.clone();
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| JournalError::Io { path, why: error.to_string() }
    };
    for part in ["", "outbox", "history", "keys", "quarantine"] {
        let path = directory.join(part);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io_error(&path))?;
    }
    same_owner(&directory)?;
    sync_directory(&directory)
        .map_err(|fault| JournalError::Io { path: directory.clone(), why: fault.why().to_owned() })?;
    let lock = lock(&directory)?;
    check_format(&directory).map_err(io_error(&directory.join("format")))??;

    let shared = Arc::new(Shared::new(directory.clone()));
    let store_error =
        |fault: Fault| JournalError::Io { path: directory.clone(), why: fault.why().to_owned() };
    let witness = witness::read(&directory);
    let loaded = head::load(&shared.pool, &shared.quarantine(), witness).map_err(store_error)?;
    let other_pbx = loaded.pbx.as_ref().is_some_and(|stored| *stored != options.pbx);
    if let (true, Some(stored)) = (other_pbx && anything_open(&loaded.book), &loaded.pbx) {
        return Err(JournalError::OtherPbx { stored: stored.clone(), configured: options.pbx });
    }

    let (commands, receiver) = mpsc::channel(QUEUE);
    let (jobs, job_receiver) = std::sync::mpsc::channel();
    let historian = Historian {
        days: Days::new(&shared),
        shared: Arc::clone(&shared),
        writer: commands.downgrade(),
        keep: options.keep,
        max_size: options.max_size,
    };
    let quarantined = loaded.quarantined.clone();
    let needs_head = loaded.needs_head || other_pbx;
    let witness = WitnessFile::open(&directory).map_err(io_error(&directory.join("witness")))?;
    let mut writer = Writer::new(options, Arc::clone(&shared), loaded, jobs.clone(), witness, lock);
    if needs_head {
        writer.make_head().map_err(store_error)?;
    }
    writer.finish_moves().map_err(|(_, fault)| store_error(fault))?;
    writer.salvage_all().map_err(|(_, fault)| store_error(fault))?;
    let recovered = recovered(&mut writer, quarantined).map_err(store_error)?;
    reached(KillPoint::Loaded);
    if recovered.lost > 0 {
        tracing::error!(records = recovered.lost, "records at the end of a generation are lost");
    }
    for (path, why) in &recovered.quarantined {
        tracing::error!(path = %path.display(), why, "a damaged part of the journal was put aside");
    }

    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let historian = thread("history").spawn(move || historian.run(&job_receiver));
    let historian = historian.map_err(io_error(&directory))?;
    let writer = writer.with_historian(historian);
    thread("journal").spawn(move || writer.run(receiver)).map_err(io_error(&directory))?;
    Ok((Opened { shared, commands, jobs }, recovered))
}

fn recovered(writer: &mut Writer, quarantined: Vec<(PathBuf, String)>) -> Result<Recovered, Fault> {
    let head = writer.head().map_err(|(_, fault)| fault)?;
    let objects = head::objects(&head)?;
    let book = &writer.book;
    let pending = book
        .routes
        .iter()
        .map(|(number, name)| (name.clone(), book.total(number).pending))
        .filter(|(_, pending)| *pending > 0)
        .collect();
    Ok(Recovered { objects, quarantined, lost: writer.lost, pending })
}

fn anything_open(book: &Book) -> bool {
    !book.objects.is_empty() || book.generations.values().any(|generation| generation.pending() > 0)
}

/// Files of another owner would be unwritable later, or unreadable to their owner: nothing of them
/// is touched.
fn same_owner(directory: &Path) -> Result<(), JournalError> {
    let io_error = |error: io::Error| JournalError::Io { path: directory.to_owned(), why: error.to_string() };
    let me = tempfile::tempfile_in(directory).and_then(|file| file.metadata()).map_err(io_error)?.uid();
    let check = |path: PathBuf| {
        let owner = fs::symlink_metadata(&path).map_err(io_error)?.uid();
        if owner == me { Ok(()) } else { Err(JournalError::Owner { path, owner, me }) }
    };
    check(directory.to_owned())?;
    for room in ["", "outbox", "history", "keys", "quarantine"] {
        for entry in fs::read_dir(directory.join(room)).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            check(path.clone())?;
            let database = path.join("db");
            if room == "outbox" && database.exists() {
                check(database)?;
            }
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<Lock, JournalError> {
    let path = directory.join("lock");
    let io_error = |error: io::Error| JournalError::Io { path: path.clone(), why: error.to_string() };
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(io_error)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse(directory.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error(error)),
        }
    }
}

/// The lock for somebody who only looks: none while an agent has it.
pub(super) fn try_lock(directory: &Path) -> io::Result<Option<File>> {
    let file = File::open(directory.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Writes the format's name into a new journal; refuses another format, which is not damage.
pub(super) fn check_format(directory: &Path) -> io::Result<Result<(), JournalError>> {
    let path = directory.join("format");
    match fs::read_to_string(&path) {
        Ok(text) if text == FORMAT => return Ok(Ok(())),
        Ok(text) if is_another(&text) => {
            let why = format!("it is a \"{}\", which this version cannot read", text.trim_end());
            return Ok(Err(JournalError::Io { path, why }));
        }
        // cut short by a crash, or damaged: every record says its version as well
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
        Err(error) => return Err(error),
    }
    let mut file = File::create(&path)?;
    file.write_all(FORMAT.as_bytes())?;
    file.sync_all()?;
    sync_directory(directory).map_err(|fault| io::Error::other(fault.why().to_owned()))?;
    Ok(Ok(()))
}

/// Whether this names another format: its number, which stands twice so that no damaged digit passes
/// for it.
fn is_another(text: &str) -> bool {
    let Some(numbers) = text.strip_prefix("callpost journal ").and_then(|rest| rest.strip_suffix('\n'))
    else {
        return false;
    };
    numbers.split_once(' ').is_some_and(|(one, two)| one == two && one.parse::<u32>().is_ok())
}
