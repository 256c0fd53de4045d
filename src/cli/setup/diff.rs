//! What changes in a text, line by line, without its secrets.

/// Lines around a change.
const CONTEXT: usize = 2;
/// Above so many pairs of lines the middle is shown as replaced.
const MAX_PAIRS: usize = 4_000_000;

/// Lines that begin with `+`, `-` or a space; `...` where lines are left out.
pub(super) fn diff(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let marked = marked(&old, &new);
    let near = |n: usize| {
        let from = n.saturating_sub(CONTEXT);
        marked.iter().skip(from).take(n - from + CONTEXT + 1).any(|(mark, _)| *mark != ' ')
    };
    let mut out = Vec::new();
    let mut left_out = false;
    for (n, (mark, line)) in marked.iter().enumerate() {
        if !near(n) {
            left_out = true;
            continue;
        }
        if std::mem::take(&mut left_out) {
            out.push("  ...".to_owned());
        }
        out.push(format!("{mark} {}", masked(line)).trim_end().to_owned());
    }
    out
}

/// A line whose key says that it is a secret shows stars.
fn masked(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else { return line.to_owned() };
    let lower = key.to_lowercase();
    let secret =
        ["secret", "pass", "token"].iter().any(|word| lower.contains(word)) && !lower.contains("_file");
    if !secret || value.trim().is_empty() {
        return line.to_owned();
    }
    format!("{key}= ********")
}

fn marked<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (old.get(same..).unwrap_or_default(), new.get(same..).unwrap_or_default());
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let middle = |all: &[&'a str]| all.get(..all.len() - tail).unwrap_or_default().to_vec();
    let mut out: Vec<_> = old.iter().take(same).map(|line| (' ', *line)).collect();
    out.extend(aligned(&middle(old_rest), &middle(new_rest)));
    out.extend(old_rest.iter().skip(old_rest.len() - tail).map(|line| (' ', *line)));
    out
}

/// By the longest common subsequence.
fn aligned<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let replaced = || old.iter().map(|l| ('-', *l)).chain(new.iter().map(|l| ('+', *l))).collect();
    if old.len() * new.len() > MAX_PAIRS {
        return replaced();
    }
    let width = new.len() + 1;
    let mut longest = vec![0_usize; (old.len() + 1) * width];
    let at = |row: usize, column: usize| row * width + column;
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            longest[at(i, j)] = if a == b {
                longest[at(i + 1, j + 1)] + 1
            } else {
                longest[at(i + 1, j)].max(longest[at(i, j + 1)])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while let (Some(a), Some(b)) = (old.get(i), new.get(j)) {
        if a == b {
            out.push((' ', *a));
            (i, j) = (i + 1, j + 1);
        } else if longest[at(i + 1, j)] >= longest[at(i, j + 1)] {
            out.push(('-', *a));
            i += 1;
        } else {
            out.push(('+', *b));
            j += 1;
        }
    }
    out.extend(old.iter().skip(i).map(|line| ('-', *line)));
    out.extend(new.iter().skip(j).map(|line| ('+', *line)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_what_is_around_them_and_no_secret() {
        let before = "1\n2\n3\n4\n5\nsecret = hunter2\n7\n8\n9\n";
        let after = "1\n2\n3\n4\nfive\nsecret = hunter2\n7\n8\n9\nsecret=new\n";
        let shown = diff(before, after);
        assert_eq!(
            shown,
            [
                "  ...",
                "  3",
                "  4",
                "- 5",
                "+ five",
                "  secret = ********",
                "  7",
                "  8",
                "  9",
                "+ secret= ********"
            ]
        );
        assert_eq!(diff("a\n", "a\n"), [""; 0]);
        assert_eq!(diff("", "a\nsecret_file = \"x\"\n"), ["+ a", "+ secret_file = \"x\""]);
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_makes_the_one_of_the_other(old in "([abc]\n){0,8}", new in "([abc]\n){0,8}") {
            let (before, after): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
            let all = marked(&before, &after);
            let of = |not: char| all.iter().filter(|(m, _)| *m != not).map(|(_, l)| *l).collect::<Vec<_>>();
            proptest::prop_assert_eq!(of('+'), before);
            proptest::prop_assert_eq!(of('-'), after);
        }
    }
}
