//! `cdr_csv`'s Master.csv in every column variant, and the sample layout of `cdr_custom`; with the files
//! that rotation made of it, compressed ones too.
//!
//! Records are appended as calls end. A file that is not compressed is entered by halving near the span.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::read::MultiGzDecoder;
use jiff::tz::TimeZone;
use parsers::{Cdr, Micros};

use super::columns::{Field, RowBuilder};
use super::store::{Page, Span, StoreError};
use super::zone;

/// Asterisk drops records above 1024 bytes; cdr_custom has no limit.
const MAX_LINE: u64 = 16 * 1024;
/// Rows of a page.
const PAGE: usize = 500;
/// Bytes at a file's end that tell how times are written, and at its beginning when it began.
const SAMPLE: u64 = 64 * 1024;
/// Files that are looked at for it where the log is empty.
const SAMPLED: usize = 8;
/// So many records in a row that ended a day after the span: nothing of it comes any more.
const BEYOND: usize = 100;
/// Rotated files of one log; more is somebody's archive.
const MAX_FILES: usize = 4_000;
/// Halving stops when so little is left.
const NEAR: u64 = 64 * 1024;
/// Records are in order of their end but for what batches mix.
const MIXED: i64 = 600;
const DAY: i64 = 86_400;

/// The log and what rotation made of it.
#[derive(Debug)]
pub(super) struct Csv {
    path: PathBuf,
    /// The latest rows, as they are stored.
    pub sample: Vec<Cdr>,
    files: usize,
    reading: Option<Reading>,
}

/// A walk through the files, oldest first.
#[derive(Debug)]
struct Reading {
    /// Still to be read, the next last.
    files: Vec<LogFile>,
    open: Option<Open>,
    /// In the store's own clock, as if it were UTC.
    from: i64,
    to: i64,
}

/// One file of the log, as it was listed.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    /// When it was last written, seconds.
    written: i64,
    /// Device and inode: another file of this name is another part of the log.
    is: (u64, u64),
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    lines: Box<dyn BufReadDebug>,
    compressed: bool,
    done: bool,
    /// Records since the last that is not far behind the span.
    beyond: usize,
}

/// A reader that can be shown.
trait BufReadDebug: BufRead + Send {}
impl<T: BufRead + Send> BufReadDebug for T {}

impl std::fmt::Debug for dyn BufReadDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lines")
    }
}

impl Csv {
    /// Looks at the file and its neighbours.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_path_buf();
        blocking(move || {
            let mut file = File::open(&path).map_err(|why| unreadable(&path, &why))?;
            let mut sample = sample(&mut file).map_err(|why| unreadable(&path, &why))?;
            let length = file.metadata().map_err(|why| unreadable(&path, &why))?.len();
            if sample.is_empty() && length > 0 {
                let what =
                    format!("no line of {} is a record of cdr_csv or of cdr_custom's sample", path.display());
                return Err(StoreError::new(what, "name Master.csv, or use another store"));
            }
            let mut files = files(&path).map_err(|why| unreadable(&path, &why))?;
            let count = files.len();
            if sample.is_empty() {
                // rotated just now: the clock is that of the rows before
                files.sort_by_key(|file| std::cmp::Reverse(file.written));
                let samples = files.iter().take(SAMPLED).filter_map(|file| rotated_sample(&file.path).ok());
                sample = samples.into_iter().find(|rows| !rows.is_empty()).unwrap_or_default();
            }
            Ok(Self { path, sample, files: count, reading: None })
        })
        .await
    }

    pub fn paging(&self) -> String {
        match self.files {
            1 => "one file".to_owned(),
            files => format!("{files} files, rotated ones included"),
        }
    }

    /// Starts over with this span.
    ///
    /// # Errors
    /// When the files cannot be listed.
    pub async fn begin(&mut self, span: Span, clock: &TimeZone) -> Result<(), StoreError> {
        let path = self.path.clone();
        let (from, to) = (position(span.from, clock), position(span.to, clock));
        let since = span.from;
        let files = blocking(move || {
            let mut files = files(&path).map_err(|why| unreadable(&path, &why))?;
            // what was last written before the span has nothing of it; nothing is passed over for a
            // clock or a zone that is some hours wrong
            files.retain(|file| file.written >= since.secs() - DAY);
            // by what is in them: one that was copied or restored was written last
            files.sort_by_cached_key(|file| std::cmp::Reverse((first(&file.path), file.written)));
            Ok(files)
        })
        .await?;
        self.reading = Some(Reading { files, open: None, from, to });
        Ok(())
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn next(&mut self) -> Result<Option<Page>, StoreError> {
        let Some(mut reading) = self.reading.take() else { return Ok(None) };
        let (reading, page) = blocking(move || {
            let page = reading.page()?;
            Ok((reading, page))
        })
        .await?;
        self.reading = Some(reading);
        Ok(page)
    }
}

impl Reading {
    fn page(&mut self) -> Result<Option<Page>, StoreError> {
        let mut rows = Vec::new();
        loop {
            if self.open.is_none() {
                let Some(file) = self.files.pop() else {
                    return Ok((!rows.is_empty()).then_some(Page { rows, reached: None }));
                };
                let path = &file.path;
                self.open = Some(Open::at(&file, self.from - MIXED).map_err(|why| unreadable(path, &why))?);
            }
            let Some(open) = &mut self.open else { return Ok(None) };
            while let Some(cdr) = open.next()? {
                // what ends a day later and still began before is a call that never ends; a few of them
                // are of a clock that was wrong for a while
                let beyond = ended(&cdr).is_some_and(|end| end > self.to + DAY);
                open.beyond = if beyond { open.beyond + 1 } else { 0 };
                open.done |= open.beyond >= BEYOND;
                let start = cdr.start.as_deref().and_then(utc);
                if start.is_some_and(|start| (self.from..self.to).contains(&start)) {
                    rows.push(cdr);
                }
                if rows.len() == PAGE {
                    return Ok(Some(Page { rows, reached: None }));
                }
            }
            self.open = None;
        }
    }
}

impl Open {
    /// Near the first record that ends at this moment or later.
    fn at(listed: &LogFile, moment: i64) -> io::Result<Self> {
        let mut file = File::open(&listed.path)?;
        if identity(&file.metadata()?) != listed.is {
            return Err(io::Error::other("the log was rotated while it was read; it is read again"));
        }
        if is_compressed(&mut file)? {
            let lines = BufReader::with_capacity(64 * 1024, MultiGzDecoder::new(BufReader::new(file)));
            return Ok(Self::new(&listed.path, lines, true));
        }
        let offset = enter(&mut file, moment)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut lines = BufReader::with_capacity(64 * 1024, file);
        if offset > 0 {
            line(&mut lines)?;
        }
        Ok(Self::new(&listed.path, lines, false))
    }

    /// A file's first records.
    fn beginning(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let compressed = is_compressed(&mut file)?;
        let bytes: Box<dyn Read + Send> =
            if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self::new(path, BufReader::new(bytes.take(SAMPLE)), compressed))
    }

    fn new(path: &Path, lines: impl BufRead + Send + 'static, compressed: bool) -> Self {
        Self { path: path.to_owned(), lines: Box::new(lines), compressed, done: false, beyond: 0 }
    }

    /// The next record. A compressed file that is damaged, or still being written, ends there: what is
    /// behind it is worth as much as without the damage.
    fn next(&mut self) -> Result<Option<Cdr>, StoreError> {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};

        match self.row() {
            Err(why)
                if self.compressed && [InvalidData, InvalidInput, UnexpectedEof].contains(&why.kind()) =>
            {
                let path = self.path.display();
                tracing::warn!(%path, reason = %why, "a rotated CDR file is damaged: its calls from there on are not read");
                self.done = true;
                Ok(None)
            }
            row => row.map_err(|why| unreadable(&self.path, &why)),
        }
    }

    fn row(&mut self) -> io::Result<Option<Cdr>> {
        while !self.done {
            match line(&mut self.lines)? {
                None => self.done = true,
                Some(bytes) => {
                    if let Some(cdr) = record(&bytes) {
                        return Ok(Some(cdr));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn is_compressed(file: &mut File) -> io::Result<bool> {
    let mut magic = [0; 2];
    let compressed = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.rewind()?;
    Ok(compressed)
}

/// When the first record of a file starts, in the store's own clock; what cannot be read has none.
fn first(path: &Path) -> Option<i64> {
    // every layout has it as a time
    Open::beginning(path).ok()?.row().ok()??.start.as_deref().and_then(utc)
}

/// Some rows of a rotated file: of one that is compressed the first, of another the latest.
fn rotated_sample(path: &Path) -> io::Result<Vec<Cdr>> {
    let mut file = File::open(path)?;
    if !is_compressed(&mut file)? {
        return sample(&mut file);
    }
    let mut open = Open::beginning(path)?;
    let mut rows = Vec::new();
    while let Ok(Some(cdr)) = open.row() {
        rows.push(cdr);
    }
    Ok(rows)
}

fn identity(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// An offset before the first record that ends at this moment or later.
fn enter(file: &mut File, moment: i64) -> io::Result<u64> {
    let (mut low, mut high) = (0, file.metadata()?.len());
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        file.seek(SeekFrom::Start(middle))?;
        let mut lines = BufReader::new(&mut *file);
        line(&mut lines)?;
        let mut end = None;
        while end.is_none() {
            let Some(bytes) = line(&mut lines)? else { break };
            end = record(&bytes).as_ref().and_then(ended);
        }
        match end {
            Some(end) if end < moment => low = middle,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

/// One line without its end, at most [`MAX_LINE`] of it; a last line without an end is still being written.
fn line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)?;
    match bytes.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(bytes)),
        Some(_) if (bytes.len() as u64) < MAX_LINE - 1 => Ok(None),
        Some(_) => {
            // too long to be a record: skipped in pieces, so that it never fills memory
            loop {
                let mut piece = Vec::new();
                lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut piece)?;
                if piece.last().is_none_or(|last| *last == b'\n') {
                    return Ok(Some(Vec::new()));
                }
            }
        }
    }
}

/// A record, in whichever layout; `None` for what is none.
fn record(line: &[u8]) -> Option<Cdr> {
    let text = String::from_utf8_lossy(line);
    let fields = fields(text.trim_end_matches('\r'))?;
    let layout = layout(&fields)?;
    let mut row = RowBuilder::default();
    for (field, text) in layout.into_iter().zip(&fields) {
        if let Some(field) = field {
            row.set(field, text);
        }
    }
    Some(row.finish())
}

/// RFC 4180's fields: quoted ones may hold commas, `""` is a quote. `None` where quotes do not match.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
            Some(quoted) => {
                let mut field = String::new();
                let mut inside = quoted;
                loop {
                    let end = inside.find('"')?;
                    field.push_str(&inside[..end]);
                    inside = &inside[end + 1..];
                    match inside.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            inside = more;
                        }
                        None => break,
                    }
                }
                (field, inside)
            }
        };
        fields.push(field);
        match behind.strip_prefix(',') {
            Some(more) => rest = more,
            None if behind.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// What each field is: by the number of fields, and where that is not enough by their form.
fn layout(fields: &[String]) -> Option<Vec<Option<Field>>> {
    use Field::{
        Accountcode, Answer, Billsec, Channel, Clid, Dcontext, Disposition, Dst, Dstchannel, Duration, End,
        Lastapp, Lastdata, Linkedid, Peeraccount, Sequence, Src, Start, Uniqueid, Userfield,
    };
    // cdr_csv.c; amaflags is not read
    const PLAIN: [Option<Field>; 16] = [
        Some(Accountcode),
        Some(Src),
        Some(Dst),
        Some(Dcontext),
        Some(Clid),
        Some(Channel),
        Some(Dstchannel),
        Some(Lastapp),
        Some(Lastdata),
        Some(Start),
        Some(Answer),
        Some(End),
        Some(Duration),
        Some(Billsec),
        Some(Disposition),
        None,
    ];
    // cdr_custom.conf's sample
    const CUSTOM: [Option<Field>; 19] = [
        Some(Clid),
        Some(Src),
        Some(Dst),
        Some(Dcontext),
        Some(Channel),
        Some(Dstchannel),
        Some(Lastapp),
        Some(Lastdata),
        Some(Start),
        Some(Answer),
        Some(End),
        Some(Duration),
        Some(Billsec),
        Some(Disposition),
        None,
        Some(Accountcode),
        Some(Uniqueid),
        Some(Userfield),
        Some(Sequence),
    ];
    const NEW: [Option<Field>; 3] = [Some(Peeraccount), Some(Linkedid), Some(Sequence)];
    let is_time = |n: usize| fields.get(n).is_some_and(|text| utc(text).is_some());
    let is_id =
        |n: usize| fields.get(n).is_some_and(|text| parsers::Uniqueid::new(text.as_str()).epoch().is_some());
    if fields.len() == CUSTOM.len() && is_time(8) {
        return Some(CUSTOM.to_vec());
    }
    if !is_time(9) {
        return None;
    }
    // loguniqueid, loguserfield, newcdrcolumns: each on or off
    let more: &[Option<Field>] = match fields.len() {
        17 | 20 if is_id(16) => &[Some(Uniqueid)],
        17 | 20 => &[Some(Userfield)],
        18 | 21 => &[Some(Uniqueid), Some(Userfield)],
        16 | 19 => &[],
        _ => return None,
    };
    let new: &[Option<Field>] = if fields.len() >= 19 { &NEW } else { &[] };
    Some([&PLAIN[..], more, new].concat())
}

/// A text as if it were UTC, seconds.
fn utc(text: &str) -> Option<i64> {
    zone::instant(text, &TimeZone::UTC, None).map(Micros::secs)
}

fn ended(cdr: &Cdr) -> Option<i64> {
    let end = cdr.end.as_deref().and_then(utc);
    let seconds = i64::try_from(cdr.duration).ok()?;
    end.or_else(|| Some(cdr.start.as_deref().and_then(utc)?.saturating_add(seconds)))
}

fn position(at: Micros, clock: &TimeZone) -> i64 {
    zone::local_text(at, clock).as_deref().and_then(utc).unwrap_or_else(|| at.secs())
}

/// The latest rows of a file.
fn sample(file: &mut File) -> io::Result<Vec<Cdr>> {
    let length = file.metadata()?.len();
    let offset = length.saturating_sub(SAMPLE);
    file.seek(SeekFrom::Start(offset))?;
    let mut lines = BufReader::new(file);
    if offset > 0 {
        line(&mut lines)?;
    }
    let mut rows = Vec::new();
    while let Some(bytes) = line(&mut lines)? {
        rows.extend(record(&bytes));
    }
    Ok(rows)
}

/// The log and its rotated files (`Master.csv.1`, `Master.csv-20261101.gz`).
fn files(path: &Path) -> io::Result<Vec<LogFile>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let other = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = other.strip_prefix(&name) else { continue };
        let number = rest.strip_suffix(".gz").unwrap_or(rest);
        let rotated = number.is_empty()
            || number.strip_prefix(['.', '-']).is_some_and(|rest| {
                rest.starts_with(|c: char| c.is_ascii_digit())
                    && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-')
            });
        let about = std::fs::metadata(entry.path())?;
        if !rotated || !about.is_file() {
            continue;
        }
        let written = about.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let written = i64::try_from(written).unwrap_or(i64::MAX);
        files.push(LogFile { path: entry.path(), written, is: identity(&about) });
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} rotated files")));
        }
    }
    Ok(files)
}

fn unreadable(path: &Path, why: &io::Error) -> StoreError {
    let remedy = "correct [cdr] source, or let the user callpost read the file and its directory";
    StoreError::new(format!("cannot read {}: {why}", path.display()), remedy)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|why| Err(StoreError::new(format!("the reader stopped: {why}"), "report it")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    const PLAIN: &str = r#""acc","58414","5551000","from-trunk","""Ana, B."" <58414>","PJSIP/trunk-1","PJSIP/1001-2","Dial","PJSIP/1001,30","2026-11-21 09:19:27",,"2026-11-21 09:19:30",3,0,"NO ANSWER","DOCUMENTATION""#;

    #[test]
    fn every_variant_of_columns_is_told_by_count_and_form() {
        let id = r#","1795252767.0""#;
        let prefixed = r#","pbx-1795252767.0""#;
        let user = r#","a user's field""#;
        let new = r#","peer","1795252766.9",7"#;
        let table = [
            ("", None, None, None),
            (id, Some("1795252767.0"), None, None),
            (prefixed, Some("pbx-1795252767.0"), None, None),
            (user, None, Some("a user's field"), None),
            (&format!("{id}{user}"), Some("1795252767.0"), Some("a user's field"), None),
            (new, None, None, Some(7)),
            (&format!("{id}{new}"), Some("1795252767.0"), None, Some(7)),
            (&format!("{user}{new}"), None, Some("a user's field"), Some(7)),
            (&format!("{id}{user}{new}"), Some("1795252767.0"), Some("a user's field"), Some(7)),
        ];
        for (more, uniqueid, userfield, sequence) in table {
            let cdr = record(format!("{PLAIN}{more}").as_bytes()).unwrap();
            assert_eq!(cdr.uniqueid.as_ref().map(|id| id.as_str()), uniqueid, "{more}");
            assert_eq!(cdr.userfield.as_deref(), userfield, "{more}");
            assert_eq!(cdr.sequence, sequence, "{more}");
            assert_eq!(cdr.linkedid.is_some(), sequence.is_some(), "{more}");
            assert_eq!((cdr.src.as_deref(), cdr.dst.as_deref()), (Some("58414"), Some("5551000")));
            assert_eq!(cdr.clid.as_deref(), Some("\"Ana, B.\" <58414>"));
            assert_eq!((cdr.answer.as_deref(), cdr.duration, cdr.billsec), (None, 3, 0));
        }
    }

    #[test]
    fn the_sample_of_cdr_custom_is_read_too() {
        let custom = r#""""x"" <1>","58414","5551000","from-trunk","PJSIP/trunk-1","PJSIP/1001-2","Dial","PJSIP/1001,30","2026-11-21 09:19:27","2026-11-21 09:19:28","2026-11-21 09:19:30","3","2","ANSWERED","3","","1795252767.0","","7""#;
        let cdr = record(custom.as_bytes()).unwrap();
        assert_eq!((cdr.src.as_deref(), cdr.duration, cdr.sequence), (Some("58414"), 3, Some(7)));
        assert_eq!(cdr.answer.as_deref(), Some("2026-11-21 09:19:28"));
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        for line in ["", "\"a", "a,b,c", "\"a\"b,c", &"x,".repeat(16), &format!("{PLAIN},1,2,3,4,5,6")] {
            assert_eq!(record(line.as_bytes()), None, "{line}");
        }
    }

    /// A file of the log, with a row for each of these hours.
    fn log(directory: &Path, name: &str, hours: std::ops::Range<u32>) {
        let at = |hour: u32| format!("2026-11-21 {hour:02}:19:27");
        let lines: String = hours
            .map(|hour| {
                format!(
                    "{},\"{}.0\"\n",
                    PLAIN.replace("2026-11-21 09:19:27", &at(hour)),
                    1_795_238_367 + hour * 3600
                )
            })
            .collect();
        let bytes = if name.ends_with(".gz") {
            use std::io::Write as _;
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(lines.as_bytes()).unwrap();
            gzip.finish().unwrap()
        } else {
            lines.into_bytes()
        };
        std::fs::write(directory.join(name), bytes).unwrap();
    }

    async fn begun(directory: &Path) -> Csv {
        let mut csv = Csv::open(&directory.join("Master.csv")).await.unwrap();
        let (from, to) = (Micros(1_790_000_000_000_000), Micros(1_800_000_000_000_000));
        csv.begin(Span { from, to }, &TimeZone::UTC).await.unwrap();
        csv
    }

    #[tokio::test]
    async fn the_clock_of_a_log_that_was_rotated_just_now_is_that_of_the_rows_before() {
        for older in ["Master.csv.1", "Master.csv-20261121.gz"] {
            let directory = tempfile::tempdir().unwrap();
            log(directory.path(), "Master.csv", 0..0);
            log(directory.path(), older, 3..9);
            let csv = Csv::open(&directory.path().join("Master.csv")).await.unwrap();
            assert_eq!(csv.sample.len(), 6, "{older}");
        }
    }

    #[tokio::test]
    async fn a_rotation_in_the_middle_is_told_and_another_walk_reads_everything() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        log(directory.path(), "Master.csv.1", 1..3);
        log(directory.path(), "Master.csv", 3..9);
        let mut csv = begun(directory.path()).await;
        std::fs::rename(at("Master.csv.1"), at("Master.csv.2")).unwrap();
        std::fs::rename(at("Master.csv"), at("Master.csv.1")).unwrap();
        log(directory.path(), "Master.csv", 9..10);
        let error = csv.next().await.unwrap_err();
        assert!(error.what.contains("rotated while it was read"), "{error}");
        let mut csv = begun(directory.path()).await;
        assert_eq!(csv.next().await.unwrap().unwrap().rows.len(), 9);
    }

    #[tokio::test]
    async fn a_damaged_rotated_file_ends_where_it_is_damaged_and_the_next_is_read() {
        let directory = tempfile::tempdir().unwrap();
        log(directory.path(), "Master.csv.1.gz", 1..3);
        log(directory.path(), "Master.csv", 3..9);
        let path = directory.path().join("Master.csv.1.gz");
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 12], &[&whole[..], b"behind its end"].concat()] {
            std::fs::write(&path, damaged).unwrap();
            let rows = begun(directory.path()).await.next().await.unwrap().unwrap().rows;
            assert!((6..=8).contains(&rows.len()), "{}", rows.len());
        }
    }

    #[tokio::test]
    async fn a_clock_that_was_wrong_for_a_while_hides_nothing_behind_it() {
        let directory = tempfile::tempdir().unwrap();
        log(directory.path(), "Master.csv", 1..9);
        let path = directory.path().join("Master.csv");
        let text = std::fs::read_to_string(&path).unwrap();
        let wrong = text.lines().next().unwrap().replace("2026", "2030");
        std::fs::write(&path, format!("{wrong}\n{text}")).unwrap();
        assert_eq!(begun(directory.path()).await.next().await.unwrap().unwrap().rows.len(), 8);
    }

    #[test]
    fn a_line_too_long_costs_itself_alone_and_one_without_an_end_waits() {
        let long = "x".repeat(100_000);
        let text = format!("a\n{long}\nb\nhalf");
        let mut lines = text.as_bytes();
        let mut read = Vec::new();
        while let Some(bytes) = line(&mut lines).unwrap() {
            read.push(String::from_utf8(bytes).unwrap());
        }
        assert_eq!(read, ["a", "", "b"]);
    }
}
