//! Tables and objects on standard output.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::args::{Format, Output};
use super::error::Error;
use super::position::Positions;
use super::view;
use crate::runtime::telemetry::chain;

/// Characters of a topic in a table.
const TOPIC: usize = 60;

/// Rows under headings, each column as wide as its widest text.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub fn new(headings: Vec<&'static str>) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row with a text for each heading.
    pub fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As it is printed.
    pub fn text(&self, with_headings: bool) -> String {
        let headings: Vec<String> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        let lines: Vec<&Vec<String>> =
            Some(&headings).filter(|_| with_headings).into_iter().chain(&self.rows).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let mut text = String::new();
        for row in lines {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}   ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The table of jobs.
pub fn jobs_table(all_namespaces: bool, is_wide: bool) -> Table {
    let first: &[&str] = if all_namespaces { &["NAMESPACE"] } else { &[] };
    let rest: &[&str] = if is_wide { &["POSITION", "POOL", "QUEUE", "WORKER", "TASK ID", "TOPIC"] } else { &[] };
    let usual = ["NAME", "PHASE", "REASON", "PRIORITY", "ATTEMPTS", "AGE", "DURATION"];
    Table::new(first.iter().chain(&usual).chain(rest).copied().collect())
}

/// The row of a job in it, wide with the positions of those that wait.
pub fn job_row(job: &DynamicObject, all_namespaces: bool, wide: Option<&Positions>, now: Timestamp) -> Vec<String> {
    let time = |length: Option<std::time::Duration>| length.map(view::length).unwrap_or_default();
    let own = |text: &str| if text.is_empty() { "-".to_owned() } else { view::one_line(text) };
    let mut row = Vec::new();
    if all_namespaces {
        row.push(job.namespace().unwrap_or_default());
    }
    row.extend([
        job.name_any(),
        own(view::phase(job)),
        own(view::reason(job)),
        own(&view::number(job, "/spec/priority")),
        own(&view::number(job, "/status/attempts")),
        own(&time(view::age(job, now))),
        own(&time(view::runs(job, now))),
    ]);
    if let Some(positions) = wide {
        let position = positions.of(&job.namespace().unwrap_or_default(), &job.name_any());
        let topic: String = view::text(job, "/spec/topic").chars().take(TOPIC).collect();
        let of = |at: &str| own(view::text(job, at));
        row.extend([
            own(&position.map(|position| position.to_string()).unwrap_or_default()),
            of("/spec/poolRef/name"),
            of("/status/queue"),
            of("/status/worker/name"),
            of("/status/taskID"),
            own(&topic),
        ]);
    }
    row
}

/// Prints objects by their names, or as JSON or YAML: one as it is, several as a list.
pub fn objects(objects: &[DynamicObject], output: Output) -> Result<(), Error> {
    match objects {
        [one] if output != Output::Name => print(&formatted(&json!(one), output)?),
        many => list(many, output),
    }
}

/// The same, with one as a list, too: what reads it finds `items` however many there are.
pub fn list(objects: &[DynamicObject], output: Output) -> Result<(), Error> {
    if output == Output::Name {
        return objects.iter().try_for_each(|job| print(&format!("{}\n", view::name(job))));
    }
    print(&formatted(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }), output)?)
}

fn formatted(value: &Value, output: Output) -> Result<String, Error> {
    match output {
        Output::Json => Ok(format!("{value:#}\n")),
        Output::Yaml | Output::Name | Output::Wide => yaml(value),
    }
}

fn yaml(value: &Value) -> Result<String, Error> {
    let text = serde_saphyr::to_string(value).map_err(|error| Error::Print(io::Error::other(error)))?;
    Ok(format!("{}\n", text.trim_end()))
}

/// Prints something that is no object.
pub fn value(value: &Value, format: Format) -> Result<(), Error> {
    match format {
        Format::Json => print(&format!("{value:#}\n")),
        Format::Yaml => print(&yaml(value)?),
    }
}

/// Prints a text as it is.
pub fn print(text: &str) -> Result<(), Error> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(io::stdout().flush()?)
}

/// Says on standard error why something was not done.
pub fn failed(error: &Error) {
    say(&format!("error: {}", chain(error)));
}

/// Says something that is no output, on standard error.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks before many jobs are changed. Without a terminal to ask at, `--yes` has to be given.
pub fn confirmed(act: &str, count: usize, is_answered: bool) -> Result<bool, Error> {
    if is_answered || count < 2 {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!("this would {act} {count} jobs; add --yes if that is meant")));
    }
    let _ = write!(io::stderr(), "{act} {count} jobs? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text_and_lines_end_with_it() {
        let mut table = Table::new(vec!["NAME", "PHASE"]);
        table.row(vec!["a-longer-name".into(), "Queued".into()]);
        table.row(vec!["b".into(), "-".into()]);
        let lines = ["NAME            PHASE", "a-longer-name   Queued", "b               -", ""].join("\n");
        assert_eq!(table.text(true), lines);
        assert_eq!(table.text(false), lines[lines.find('\n').unwrap() + 1..]);
    }

    #[test]
    fn a_row_has_a_text_for_each_heading() {
        let job: DynamicObject = serde_json::from_value(json!({ "metadata": { "name": "tea" } })).unwrap();
        for (all, wide) in [(false, false), (true, false), (false, true), (true, true)] {
            let positions = Positions::default();
            let row = job_row(&job, all, Some(&positions).filter(|_| wide), Timestamp::UNIX_EPOCH);
            assert_eq!(row.len(), jobs_table(all, wide).headings.len());
        }
    }
}
