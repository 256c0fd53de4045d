//! Changes to the text of an Asterisk configuration file that leave every other byte as it is.

use super::scan::{Line, scan};

/// Sets a key where it counts: in place where it stands, else right below its section's header.
pub(super) fn set(text: &str, section: &str, key: &str, value: &str) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let kinds = scan(text);
    let (mut inside, mut header, mut place) = (false, None, None);
    for (n, kind) in kinds.iter().enumerate() {
        match kind {
            Line::Header { name, .. } => {
                inside = name.eq_ignore_ascii_case(section);
                if inside && header.is_none() {
                    header = Some(n);
                }
            }
            Line::Value { key: found, .. } if inside && found.eq_ignore_ascii_case(key) => place = Some(n),
            _ => {}
        }
    }
    let line = format!("{key} = {value}");
    if let Some(old) = place.and_then(|n| lines.get_mut(n)) {
        let comment = old.find(';').and_then(|at| old.get(at..)).map(str::to_owned);
        let end = if old.ends_with('\r') && comment.is_none() { "\r" } else { "" };
        *old = match comment {
            Some(comment) => format!("{line} {comment}"),
            None => format!("{line}{end}"),
        };
    } else if let Some(n) = header {
        lines.insert(n + 1, line);
    } else {
        return append(text, &format!("[{section}]\n{line}\n"));
    }
    lines.join("\n")
}

/// Adds lines at the end of a section, before the blank lines and comments that lead to the next.
pub(super) fn add(text: &str, section: &str, new: &[String]) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let (mut inside, mut last) = (false, None);
    for (n, kind) in scan(text).iter().enumerate() {
        if let Line::Header { name, .. } = kind {
            inside = name.eq_ignore_ascii_case(section);
        }
        if inside && *kind != Line::Nothing {
            last = Some(n);
        }
    }
    let Some(last) = last else {
        return append(text, &format!("[{section}]\n{}\n", new.join("\n")));
    };
    lines.splice(last + 1..last + 1, new.iter().cloned());
    lines.join("\n")
}

/// Adds a block at the end, set off by a blank line.
pub(super) fn append(text: &str, block: &str) -> String {
    let mut text = text.to_owned();
    if !text.is_empty() {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
    }
    text + block
}

/// What stands from the line with `begin` to the line with `end`, both included, is replaced.
pub(super) fn replace_block(text: &str, begin: &str, end: &str, block: &str) -> Option<String> {
    let from = text.find(begin)?;
    let length = text.get(from..)?.find(end)? + end.len();
    let after = text.get(from + length..)?;
    let after = after.strip_prefix('\n').unwrap_or(after);
    Some(format!("{}{block}{after}", text.get(..from)?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    #[test]
    fn a_key_is_set_in_place_and_its_comment_stays() {
        let text = "; top\n[general]\nport = 5038\nenabled = no ; why\n[a]\nenabled = no\n";
        assert_eq!(
            set(text, "general", "enabled", "yes"),
            "; top\n[general]\nport = 5038\nenabled = yes ; why\n[a]\nenabled = no\n"
        );
        assert_eq!(
            set("[general]\n;enabled = no\n", "general", "enabled", "yes"),
            "[general]\nenabled = yes\n;enabled = no\n"
        );
        assert_eq!(set("x", "general", "enabled", "yes"), "x\n\n[general]\nenabled = yes\n");
        assert_eq!(
            set("[general]\r\nenabled = no\r\n", "general", "enabled", "yes"),
            "[general]\r\nenabled = yes\r\n"
        );
    }

    #[test]
    fn lines_go_to_the_end_of_their_section() {
        let new = ["b => B".to_owned()];
        assert_eq!(add("[m]\na => A\n\n; next\n[z]\n", "m", &new), "[m]\na => A\nb => B\n\n; next\n[z]\n");
        assert_eq!(add("[g]\nx = 1\n;[m]\n", "m", &new), "[g]\nx = 1\n;[m]\n\n[m]\nb => B\n");
    }

    #[test]
    fn a_block_is_replaced_by_its_marks() {
        let text = "a\n; >>>\nold\n; <<<\nb\n";
        assert_eq!(
            replace_block(text, "; >>>", "; <<<", "; >>>\nnew\n; <<<\n").unwrap(),
            "a\n; >>>\nnew\n; <<<\nb\n"
        );
        assert_eq!(replace_block("a\n", "; >>>", "; <<<", ""), None);
    }
}
