//! The prompt of `baler sql`: a line editor which completes names and takes statements of several lines.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionContext;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};

use super::activity::{Running, show_activity};
use super::print_line;
use super::sql::{Format, run_statements};
use crate::error::{Error, Result};
use crate::runtime::stop_signal;

/// What the prompt understands besides SQL.
const HELP: &str = r"\d         tables        \d NAME   columns of a table
\timing    times on or off      \q       ends
Tab completes keywords, functions, tables and columns. A statement ends with `;` and may go over several lines, which are edited as
one; Ctrl-C drops it while it is written, and stops it while it runs.";

/// Where the prompt keeps its history between sessions.
fn history_file() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".baler_history"))
}

/// Reads statements, each ended by `;`, until `\q` or the end of input. An error ends its statement, not the session.
///
/// # Errors
/// Internal, when the terminal cannot be read.
pub(super) async fn repl(context: &SessionContext, format: Format) -> Result<ExitCode> {
    let failed = |e: ReadlineError| Error::internal("cannot read from the terminal").with_source(e);
    let mut editor = Editor::<Words, DefaultHistory>::new().map_err(failed)?;
    editor.set_helper(Some(Words::default()));
    if let Some(file) = history_file()
        && file.exists()
        && let Err(error) = editor.load_history(&file)
    {
        eprintln!("warning: no history of earlier sessions: {error}");
    }
    let mut shows_time = true;
    loop {
        if let Some(words) = editor.helper_mut() {
            words.0 = known_words(context).await;
        }
        let line = match editor.readline("baler> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        };
        let text = match line.trim() {
            "" => continue,
            "exit" | "quit" | "exit;" | "quit;" => break,
            line if line.starts_with('\\') => match shorthand(line) {
                Shorthand::End => break,
                Shorthand::Help => {
                    print_line(HELP);
                    continue;
                }
                Shorthand::Timing => {
                    shows_time = !shows_time;
                    print_line(if shows_time { "times are shown" } else { "times are not shown" });
                    continue;
                }
                Shorthand::Sql(text) => text,
            },
            line => line.to_string(),
        };
        editor.add_history_entry(line.trim()).map_err(failed)?;
        let (started, running) = (Instant::now(), Running::new());
        let progress = show_activity(started, running.clone())?;
        let ended = tokio::select! {
            ended = run_statements(context, &text, format, &running) => ended,
            signal = stop_signal() => Err(Error::permanent(format!("stopped by {}", signal?))),
        };
        drop(progress);
        match ended {
            Ok(()) if shows_time => eprintln!("{:.3} s", started.elapsed().as_secs_f64()),
            Ok(()) => {}
            Err(error) => eprintln!("error: {error}"),
        }
    }
    if let Some(file) = history_file()
        && let Err(error) = editor.save_history(&file)
    {
        eprintln!("warning: the history is not kept: {error}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What `\d` asks.
const TABLES: &str = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                      WHERE table_schema <> 'information_schema' ORDER BY 1, 2;";

/// A line which begins with `\`.
enum Shorthand {
    Sql(String),
    Help,
    Timing,
    End,
}

fn shorthand(line: &str) -> Shorthand {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("\\d", "") => Shorthand::Sql(TABLES.to_string()),
        ("\\d", table) => Shorthand::Sql(format!("DESCRIBE {};", table.trim().trim_end_matches(';'))),
        ("\\timing", _) => Shorthand::Timing,
        ("\\q", _) => Shorthand::End,
        _ => Shorthand::Help,
    }
}

/// Keywords which are offered; names of tables, columns and functions come with them.
const KEYWORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "DISTINCT",
    "JOIN",
    "LEFT JOIN",
    "UNION ALL",
    "INSERT INTO",
    "VALUES",
    "CREATE EXTERNAL TABLE",
    "STORED AS",
    "LOCATION",
    "OPTIONS",
    "BLOB",
    "KAFKA",
    "MONGODB",
    "BSON",
    "PARQUET",
    "DROP TABLE",
    "DESCRIBE",
    "EXPLAIN ANALYZE",
    "SHOW TABLES",
    "BETWEEN",
    "IS NOT NULL",
    "CASE WHEN",
];

/// All that may be completed now.
async fn known_words(context: &SessionContext) -> BTreeSet<String> {
    let mut words: BTreeSet<String> = KEYWORDS.iter().map(|word| (*word).to_string()).collect();
    words.extend(context.udfs());
    words.extend(context.udafs());
    words.extend(context.udwfs());
    for catalog in context.catalog_names().iter().filter_map(|name| context.catalog(name)) {
        for schema in catalog.schema_names().iter().filter(|name| *name != "information_schema").filter_map(|name| catalog.schema(name)) {
            for table in schema.table_names() {
                if let Ok(Some(provider)) = schema.table(&table).await {
                    words.extend(provider.schema().fields().iter().map(|field| field.name().clone()));
                }
                words.insert(table);
            }
        }
    }
    words
}

/// Knows words, and when a statement is whole.
#[derive(Debug, Default)]
struct Words(BTreeSet<String>);

impl Words {
    /// The words which begin like the one before `pos`, and where that begins. Keywords in the case which is typed.
    fn offers(&self, line: &str, pos: usize) -> (usize, Vec<String>) {
        let typed = line.get(..pos).unwrap_or_default();
        let start = typed
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |at| at + typed[at..].chars().next().map_or(1, char::len_utf8));
        let word = &typed[start..];
        if word.is_empty() {
            return (start, Vec::new());
        }
        let is_lower = word.chars().all(|c| !c.is_uppercase());
        let begins = |known: &&String| known.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
        let as_typed =
            |known: &String| if is_lower && known.chars().all(|c| !c.is_lowercase()) { known.to_lowercase() } else { known.clone() };
        (start, self.0.iter().filter(begins).map(as_typed).collect())
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _context: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.offers(line, pos))
    }
}

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_whole(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}

impl Helper for Words {}

/// Whether nothing more is to be typed: a command of the prompt, or a statement with its end.
fn is_whole(input: &str) -> bool {
    let text = input.trim();
    text.is_empty() || text.starts_with('\\') || matches!(text, "exit" | "quit") || text.ends_with(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_offered_in_the_case_in_which_they_are_begun() {
        let words = Words(["SELECT", "zlib_compress", "zlib_decompress", "größe"].iter().map(|word| (*word).to_string()).collect());
        let offers = |line: &str| words.offers(line, line.len());
        assert_eq!(offers("sel"), (0, vec!["select".to_string()]));
        assert_eq!(offers("EXPLAIN SEL"), (8, vec!["SELECT".to_string()]));
        assert_eq!(offers("SELECT zlib_").1.len(), 2);
        assert_eq!(offers("SELECT count(zlib_d"), (13, vec!["zlib_decompress".to_string()]));
        assert_eq!(offers("grö"), (0, vec!["größe".to_string()]));
        assert_eq!((offers("SELECT ").1, offers("nothing").1), (vec![], vec![]));
    }

    #[test]
    fn a_statement_is_whole_with_its_end() {
        for (input, whole) in [("SELECT 1", false), ("SELECT\n  1;\n", true), ("\\d x", true), ("quit", true), ("", true)] {
            assert_eq!(is_whole(input), whole, "{input}");
        }
    }
}
