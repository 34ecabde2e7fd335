//! Tokens of an OpenID provider: who comes in by them, and until when. The provider, its signatures and its keys are real.

use std::fs;

use baler_tests::authority::{Authority, Identity};
use baler_tests::corpus::lines;
use baler_tests::fleet::Fleet;
use baler_tests::flight::adbc_secure;
use baler_tests::provider::Provider;
use baler_tests::servers::Scratch;
use baler_tests::wait_until;

use super::job_as;

const AUDIENCE: &str = "urn:baler:tests";

/// A fleet which takes tokens of a provider.
struct Open {
    fleet: Fleet,
    provider: Provider,
    authority: Authority,
    driver: Identity,
    scratch: Scratch,
}

impl Open {
    fn start() -> Self {
        let (scratch, provider) = (Scratch::new(), Provider::start());
        let authority = Authority::make(&scratch.join("authority"));
        let member = authority.issue("member", &["fleet.test"], 30);
        let driver = authority.issue("driver", &["driver.test"], 30);
        let roles = scratch.join("roles");
        let text = format!(
            "member fleet dns:fleet.test\nsubmit nightly dns:driver.test\nissuer {} {AUDIENCE}\nsubmit etl jwt:sub=etl-RS256\nread people jwt:groups=analysts\n",
            provider.url()
        );
        fs::write(&roles, text).unwrap();
        let fleet = Fleet::start_secure(1, &member, &[("BALER_ACCESS".to_string(), roles.display().to_string())]);
        Self { fleet, provider, authority, driver, scratch }
    }

    fn call(&self, method: &str, path: &str, token: &str) -> (u16, String) {
        let headers = format!("authorization: Bearer {token}\r\nx-baler-action: cancel\r\n");
        self.authority.stranger().request(self.fleet.port, method, path, &headers).unwrap()
    }

    fn status(&self, token: &str) -> u16 {
        self.call("GET", "/api/jobs", token).0
    }
}

#[test]
fn who_shows_a_token_of_the_provider_has_the_role_of_what_it_claims() {
    let open = Open::start();
    let cancel = |token: &str| open.call("POST", "/api/baler/jobs/none/cancel", token).0;
    for algorithm in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        let token = open.provider.token("analyst", algorithm, AUDIENCE);
        assert_eq!([open.status(&token), cancel(&token)], [200, 403], "{algorithm}");
    }
    let etl = open.provider.token("etl", "RS256", AUDIENCE);
    assert_eq!(open.status(&etl), 200);
    assert!(![401, 403].contains(&cancel(&etl)));

    let refused = |token: &str, why: &str| {
        let (status, said) = open.call("GET", "/api/jobs", token);
        assert!(status == 401 && said.contains(why), "{status} {said}, not {why}");
    };
    refused(&open.provider.token("stranger", "RS256", AUDIENCE), "nothing that the token claims");
    // The same line, but not its subject.
    refused(&open.provider.token("etl", "ES256", AUDIENCE), "nothing that the token claims");
    refused(&open.provider.token("etl", "RS256", "urn:another"), "another audience");
    // A character within the signature: the last one of a text in base64 holds bits that do not count.
    let mut changed = etl.clone();
    let at = changed.len() - 20;
    let other = if &changed[at..=at] == "A" { "B" } else { "A" };
    changed.replace_range(at..=at, other);
    refused(&changed, "signature");
    // Keys of another provider, which calls itself otherwise.
    refused(&Provider::start().token("etl", "RS256", AUDIENCE), "no key");

    // A driver shows the token beside its certificate, from a file that somebody renews.
    let file = open.scratch.join("token");
    fs::write(&file, format!("{etl}\n")).unwrap();
    let mut job = job_as(&open.fleet, &open.driver);
    job.variables.push(("BALER_TOKEN_FILE".to_string(), file.display().to_string()));
    let bytes = lines(1, 2 << 20, "\n");
    let expected = [(job.add_file("part.jsonl", &bytes), bytes)].into();
    job.run();
    job.expect_complete(&expected);
    let log = open.fleet.log("scheduler");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("baler::audit")).collect();
    for words in [["etl/etl-RS256", "submit", "ExecuteQuery"], ["", "refused", "another audience"]] {
        assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "no line with {words:?}: {lines:#?}");
    }
    assert!(!log.contains(&etl) && !log.contains(etl.rsplit('.').next().unwrap()));
}

#[test]
fn a_client_of_flight_sql_logs_in_with_a_token_of_the_provider() {
    let open = Open::start();
    let client = |who: &str| adbc_secure(open.fleet.port, &open.provider.token(who, "RS256", AUDIENCE), &open.authority.certificate);
    let change = ("query", "CREATE VIEW v AS SELECT 1");
    let answers = client("analyst").run(&[("query", "SELECT 1 + 1"), change]);
    assert_eq!(answers[0].rows(), [["2"]]);
    assert!(answers[1].error().contains("takes the role submit"), "{answers:?}");
    let answers = client("etl").run(&[change, ("query", "SELECT * FROM v")]);
    assert_eq!(answers[1].rows(), [["1"]]);
    let finished = client("stranger").start(&[("query", "SELECT 1")]).wait();
    let text = finished.stdout.clone() + &finished.stderr;
    assert!(text.contains("nothing that the token claims"), "{finished:#?}");
}

#[test]
fn keys_are_fetched_once_and_again_when_the_provider_signs_with_others() {
    let mut open = Open::start();
    let token = |open: &Open| open.provider.token("etl", "RS256", AUDIENCE);
    let old = token(&open);
    assert_eq!(open.status(&old), 200);
    let not_known_yet = open.provider.token("analyst", "EdDSA", AUDIENCE);
    open.provider.kill();
    // Its keys are known: nobody has to ask it.
    assert_eq!([open.status(&old), open.status(&not_known_yet)], [200, 200]);
    open.provider.start_with_new_keys();
    let new = token(&open);
    wait_until("the new keys are fetched", || open.status(&new) == 200);
    // The old ones are withdrawn.
    let (status, why) = open.call("GET", "/api/jobs", &old);
    assert!(status == 401 && why.contains("no key"), "{status} {why}");
}
