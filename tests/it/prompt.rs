//! The prompt of `baler sql` on a terminal of its own (`script` makes one): completion, statements of several lines, history, stopping.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use baler_tests::baler::binary;
use baler_tests::corpus::lines;
use baler_tests::servers::Scratch;
use baler_tests::wait_until;

/// A session at the prompt: `script` is of util-linux.
struct Session {
    child: Child,
    keys: ChildStdin,
    screen: PathBuf,
    seen: usize,
}

impl Session {
    fn start(home: &Scratch) -> Self {
        let (command, screen) = (format!("'{}' sql", binary().display()), home.join("screen"));
        let mut child = Command::new("script")
            .args(["-qefc", &command, "/dev/null"])
            .env("HOME", home.path())
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(File::create(&screen).unwrap())
            .spawn()
            .unwrap();
        let keys = child.stdin.take().unwrap();
        let mut session = Self { child, keys, screen, seen: 0 };
        session.expect("baler> ");
        session
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until this appears behind what was waited for last.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        wait_until(&format!("the screen shows {text:?}"), || {
            let shown = std::fs::read(&self.screen).unwrap();
            let at = String::from_utf8_lossy(&shown[self.seen..]).find(text);
            self.seen = at.map_or(self.seen, |at| self.seen + at + text.len());
            at.is_some()
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn names_are_completed_and_a_statement_of_several_lines_is_one_entry_of_the_history() {
    let home = Scratch::new();
    let mut session = Session::start(&home);
    session.press("CREATE VIEW measurements AS SELECT 'abcde' AS wording;\r");
    session.expect("baler> ");
    // A function, a column and a table, each by its beginning.
    session.press("SELECT octet_l\t(word\t) AS n\rFROM measu\t;\r");
    session.expect("| 5 ");
    session.expect("baler> ");
    session.press("\x1b[A\r");
    session.expect("| 5 ");
    session.expect("baler> ");
    session.press("\\q\r");
    wait_until("the session ends", || session.child.try_wait().unwrap().is_some());
    let history = std::fs::read_to_string(home.join(".baler_history")).unwrap();
    assert!(history.contains("SELECT octet_length(wording) AS n\\nFROM measurements;"), "{history}");
}

#[test]
fn a_long_query_over_files_shows_how_far_it_is() {
    let home = Scratch::new();
    std::fs::write(home.join("a.log"), lines(1, 64 << 20, "\n")).unwrap();
    let mut session = Session::start(&home);
    session.press(&format!("CREATE EXTERNAL TABLE o STORED AS BLOB LOCATION '{}';\r", home.join("a.log").display()));
    session.expect("baler> ");
    session.press("SELECT sum(octet_length(compress(content, 'zstd(19)'))) AS n FROM o;\r");
    // A figure between the ends, and then, without waiting for the end, the next prompt.
    session.expect("% ");
    session.expect("Ctrl-C stops it");
    session.press("\x03");
    session.expect("baler> ");
}

#[test]
fn a_long_query_shows_that_it_runs_and_is_stopped_without_ending_the_session() {
    let home = Scratch::new();
    let mut session = Session::start(&home);
    session.press("SELECT sum(a.value * b.value) FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b;\r");
    session.expect("Ctrl-C stops it");
    session.press("\x03");
    session.expect("stopped by SIGINT");
    session.expect("baler> ");
    session.press("SELECT 40 + 2 AS n;\r");
    session.expect("| 42 ");
}
