//! Files into one tree in which every value knows where it was written: tables merge, arrays of
//! tables append, later scalars win.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::fault::Fault;

/// Where values come from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The file as it was named, or the variable.
    pub name: String,
    /// Relative paths in the file start here.
    pub directory: Option<PathBuf>,
    /// Users other than the owner and the group can read it.
    pub world_readable: bool,
}

/// Where one value was written.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub origin: Arc<Origin>,
    /// From 1; `None` for variables.
    pub line: Option<usize>,
}

impl Place {
    pub fn fault(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault {
            file: self.origin.name.clone(),
            line: self.line,
            key: key.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// `callpost.toml:12`, for mention in another fault.
    pub fn mention(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.origin.name),
            None => self.origin.name.clone(),
        }
    }
}

/// One table.
pub(super) type Tree = BTreeMap<String, Node>;

/// One value; in a table its place is that of its key.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    /// From a variable: read as whatever type the key has.
    Variable(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Datetime(String),
    List(Vec<Node>),
    Table(Tree),
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) | Self::Variable(text) = self { Some(text) } else { None }
    }

    pub fn flag(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { self.variable()?.parse().ok() }
    }

    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { self.variable()?.parse().ok() }
    }

    pub fn float(&self) -> Option<f64> {
        if let Self::Float(number) = self {
            return Some(*number);
        }
        // whole numbers up to 2^53 are floats exactly; above that no key goes
        self.integer().map(|number| number.to_string()).or(self.variable().map(str::to_owned))?.parse().ok()
    }

    pub fn list(&self) -> Option<&[Node]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    pub fn table(&self) -> Option<&Tree> {
        if let Self::Table(table) = self { Some(table) } else { None }
    }

    fn variable(&self) -> Option<&str> {
        if let Self::Variable(text) = self { Some(text.trim()) } else { None }
    }

    /// For "expected a duration, found a list".
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Variable(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Datetime(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// One file's text as a tree. What cannot be read is a fault; the rest of the file is still there.
pub(super) fn parse(text: &str, origin: &Arc<Origin>) -> (Tree, Vec<Fault>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let file = File { text, origin };
    let faults = errors
        .iter()
        .map(|error| {
            // the error's own text quotes the line, which may hold a secret
            let place = file.place(error.span().map_or(0, |span| span.start));
            place.fault("", one_line(error.message()), "correct the TOML syntax at this line")
        })
        .collect();
    (file.table(table.get_ref()), faults)
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

struct File<'a> {
    text: &'a str,
    origin: &'a Arc<Origin>,
}

impl File<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Place { origin: Arc::clone(self.origin), line: Some(line) }
    }

    fn table(&self, table: &DeTable<'_>) -> Tree {
        let entry =
            |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
                let place = self.place(key.span().start);
                (key.get_ref().clone().into_owned(), Node { value: self.value(value.get_ref()), place })
            };
        table.iter().map(entry).collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Text(number.as_str().to_owned()), Value::Integer),
            DeValue::Float(number) => {
                number.as_str().parse().map_or_else(|_| Value::Text(number.as_str().to_owned()), Value::Float)
            }
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(at) => Value::Datetime(at.to_string()),
            DeValue::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| Node {
                        value: self.value(item.get_ref()),
                        place: self.place(item.span().start),
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}

/// Lays a later file over an earlier one.
pub(super) fn merge(under: &mut Tree, over: Tree) {
    for (key, node) in over {
        let Some(old) = under.get_mut(&key) else {
            under.insert(key, node);
            continue;
        };
        match (&mut old.value, node) {
            (Value::Table(old), Node { value: Value::Table(new), .. }) => merge(old, new),
            (Value::List(old), Node { value: Value::List(new), .. })
                if all_tables(old) && all_tables(&new) =>
            {
                old.extend(new);
            }
            (_, node) => *old = node,
        }
    }
}

fn all_tables(list: &[Node]) -> bool {
    !list.is_empty() && list.iter().all(|node| matches!(node.value, Value::Table(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        let (tree, faults) = parse(text, &Arc::default());
        assert_eq!(faults, []);
        tree
    }

    fn plain(tree: &Tree) -> String {
        tree.iter().map(|(key, node)| format!("{key}={}", shown(node))).collect::<Vec<_>>().join(" ")
    }

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Text(text) | Value::Variable(text) | Value::Datetime(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::List(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
            Value::Table(tree) => format!("{{{}}}", plain(tree)),
        }
    }

    #[test]
    fn tables_merge_arrays_of_tables_append_later_scalars_win() {
        let mut under = tree("[a]\nx = 1\ny = 2\nl = [1, 2]\n[[s]]\nn = 1\n[b]\nq = 'k'\n");
        merge(&mut under, tree("[a]\ny = 3\nz = 0x10\nl = [3]\n[[s]]\nn = 2\n"));
        assert_eq!(plain(&under), "a={l=[3] x=1 y=3 z=16} b={q=k} s=[{n=1} {n=2}]");
        let line = |key: &str| under["a"].value.table().and_then(|a| a[key].place.line);
        assert_eq!((line("x"), line("z")), (Some(2), Some(3)));
    }

    #[test]
    fn a_syntax_fault_does_not_quote_the_line() {
        let (_, faults) = parse("[nimbox]\ntoken = \"s3cr3t\nurl = 'x'\n", &Arc::default());
        assert!(!faults.is_empty());
        assert!(faults.iter().all(|fault| !fault.to_string().contains("s3cr3t")), "{faults:?}");
        assert_eq!(faults[0].line, Some(2));
    }
}
