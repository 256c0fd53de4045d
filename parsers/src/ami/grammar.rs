//! The grammar, one function a rule. Boundaries are found before this runs (see [`super::codec`]), so
//! every rule sees its whole input and none has to ask for more.

use memchr::{memchr, memmem};
use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take, take_while, take_while1};
use nom::character::complete::{char, crlf, digit1};
use nom::combinator::{all_consuming, fail, map_res, opt, recognize, rest, verify};
use nom::multi::many0_count;
use nom::sequence::{preceded, separated_pair, terminated};
use nom::{IResult, Parser};

/// How Asterisk 11 and 13 end the raw output of a command.
const END_COMMAND: &[u8] = b"--END COMMAND--";

/// `line = *OCTET CRLF`. A bare CR or LF is part of the line; a last line may lack its CRLF.
pub(super) fn line(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let mut from = 0;
    while let Some(found) = memchr(b'\n', &input[from..]) {
        let lf = from + found;
        if lf > 0 && input[lf - 1] == b'\r' {
            return Ok((&input[lf + 1..], &input[..lf - 1]));
        }
        from = lf + 1;
    }
    rest(input)
}

/// `header = key ":" [SP] value`, over one line. The value is kept as it is, blanks and colons too.
pub(super) fn header(line: &[u8]) -> IResult<&[u8], (&[u8], &[u8])> {
    separated_pair(key, (char(':'), opt(char(' '))), rest).parse_complete(line)
}

/// `key = 1*( any OCTET but ":" )`. Asterisk itself writes brackets, slashes and dashes in keys.
fn key(input: &[u8]) -> IResult<&[u8], &[u8]> {
    take_while1(|byte| byte != b':')(input)
}

/// `follows = "Response: Follows" CRLF *( meta CRLF ) output`: the answer to Command before AMI 3.
/// Gives the header lines and the output.
pub(super) fn follows(input: &[u8]) -> IResult<&[u8], (&[u8], &[u8])> {
    let head = recognize((follows_line, many0_count(terminated(meta, crlf))));
    (head, output).parse_complete(input)
}

/// `output = *OCTET "--END COMMAND--"`, up to the last of these marks.
fn output(input: &[u8]) -> IResult<&[u8], &[u8]> {
    match memmem::rfind(input, END_COMMAND) {
        Some(end) => take(end)(input),
        None => fail().parse_complete(input),
    }
}

/// `"Response: Follows" CRLF`
pub(super) fn follows_line(input: &[u8]) -> IResult<&[u8], &[u8]> {
    terminated(tag_no_case("Response: Follows"), crlf).parse_complete(input)
}

/// `meta = ( "Privilege" / "ActionID" ) ":" SP text`
fn meta(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let name = alt((tag_no_case("Privilege"), tag_no_case("ActionID")));
    recognize((name, tag(": "), take_while(|byte| byte != b'\r' && byte != b'\n'))).parse_complete(input)
}

/// `banner = "Asterisk Call Manager/" version`, over one line: AMI's major version, and all of it.
pub(super) fn banner(line: &str) -> IResult<&str, (u32, &str)> {
    let (rest, version) = preceded(tag("Asterisk Call Manager/"), version).parse_complete(line)?;
    let (_, major) = major(version)?;
    Ok((rest, (major, version)))
}

/// `version = 1*DIGIT *( "." 1*DIGIT ) [suffix]`
fn version(input: &str) -> IResult<&str, &str> {
    all_consuming(recognize((
        digit1,
        many0_count((char('.'), digit1)),
        take_while(|c: char| c.is_ascii_graphic()),
    )))
    .parse_complete(input)
}

/// `major = 1*DIGIT`
fn major(input: &str) -> IResult<&str, u32> {
    map_res(digit1, str::parse).parse_complete(input)
}

/// `variable = name "=" value`: a ChanVariable, or a Variable of Status. The name may hold commas.
pub(super) fn variable(input: &str) -> IResult<&str, (&str, &str)> {
    let name = take_while1(|c| c != '=');
    separated_pair(name, char('='), rest).parse_complete(input)
}

/// `duration = 1*DIGIT ":" 2DIGIT ":" 2DIGIT`, hours without a limit: seconds.
pub(super) fn duration(input: &str) -> IResult<&str, u64> {
    let (input, (hours, _, minutes, _, seconds)) =
        all_consuming((number, char(':'), sixtieth, char(':'), sixtieth)).parse_complete(input)?;
    Ok((input, hours.saturating_mul(3600).saturating_add(minutes * 60 + seconds)))
}

/// `number = 1*DIGIT`
fn number(input: &str) -> IResult<&str, u64> {
    map_res(digit1, str::parse).parse_complete(input)
}

/// `2DIGIT`, below 60
fn sixtieth(input: &str) -> IResult<&str, u64> {
    verify(number, |&part| part < 60).parse_complete(input)
}

/// `blank = *( CR / LF )`: what may stand before a message.
pub(super) fn blank(input: &[u8]) -> IResult<&[u8], usize> {
    let (rest, blanks) = take_while(|byte| byte == b'\r' || byte == b'\n')(input)?;
    Ok((rest, blanks.len()))
}
