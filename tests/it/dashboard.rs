//! The dashboard in a real browser: the figures of `baler jobs`, cancel, history, nothing from elsewhere, and no fault of accessibility.

use std::path::Path;
use std::process::Command;

use baler_tests::authority::{Authority, sha256};
use baler_tests::baler::{Baler, Running};
use baler_tests::browser::{self, drive};
use baler_tests::corpus::{self, lines};
use baler_tests::feed::Feed;
use baler_tests::fleet::{Fleet, get, request};
use baler_tests::job::Job;
use baler_tests::kafka::Kafka;
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::prometheus::Prometheus;
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::servers::{Scratch, Server, free_port, random_name, say};
use baler_tests::topic::Record;
use baler_tests::wait_until;
use serde_json::{Value, json};

/// Looks at the page of a job, which must be without fault. `splits` are words which its picture must come to say.
#[track_caller]
fn look(name: &str, port: u16, job: &str, state: &str, splits: &str, cancel: bool) -> Value {
    let plan = if state == "Running" { "WriteExec" } else { "" };
    let url = format!("http://127.0.0.1:{port}");
    look_with(
        "dashboard.mjs",
        &json!({ "name": name, "url": url, "job": job, "state": state, "splits": splits, "cancel": cancel, "plan": plan }),
    )
}

/// Drives a page by a script of this folder; it must be without fault.
#[track_caller]
fn look_with(script: &str, input: &Value) -> Value {
    let seen = drive(&Path::new(env!("CARGO_MANIFEST_DIR")).join("it").join(script), input);
    for fault in ["console", "outside", "failed", "faults", "overflow"] {
        assert_eq!(seen[fault], json!([]), "{fault}");
    }
    seen
}

/// What `baler jobs show` says.
fn shown(job: &str, state: &str) -> Value {
    serde_json::from_str(&Baler::new(["jobs", "show", job, "--state", state, "--output", "json"]).run().expect_code(0).stdout).unwrap()
}

/// A number as the page writes it.
fn count(value: &Value) -> String {
    let digits = value.as_u64().unwrap().to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// A fleet whose dashboard shows the jobs of `state`.
fn fleet_over(state: &Scratch, variables: &[(String, String)]) -> Fleet {
    let folder = state.path().display().to_string();
    Fleet::start_with(
        2,
        variables,
        &["--executor-timeout-seconds", "7", "--expire-dead-executor-interval-seconds", "1", "--state", &folder],
    )
}

/// Starts the job and waits until its writes hang.
fn start_held(job: &Job<'_>, proxy: &Proxy) -> Running {
    proxy.arm(Fault::Stall { writes: 12 });
    let mut run = job.call().start();
    assert!(run.runs_until("writes hang", || proxy.fired() > 0), "it ended before the stall");
    run
}

#[test]
fn a_job_on_a_fleet_is_shown_cancelled_and_remembered() {
    let (mongo, state) = (Mongo::with_login(), Scratch::new());
    let login = mongo.login.clone().unwrap();
    let secrets =
        [("MONGODB_USERNAME", &login.user), ("MONGODB_PASSWORD", &login.password)].map(|(name, value)| (name.to_string(), value.clone()));
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut fleet = fleet_over(&state, &secrets);
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port)).on(&fleet);
    (job.state, job.variables) = (format!("file://{}", state.path().display()), secrets.to_vec());
    job.sink_options.push(("mongodb.batch_docs", "4"));
    job.source_options.push(("blob.on_corrupt", "dead_letter"));
    for number in 0..6 {
        job.add_file(&format!("part-{number}.jsonl"), &lines(80 + number, 8 << 20, "\n"));
    }
    job.add_shapes(&corpus::damaged()[..1]);

    let run = start_held(&job, &proxy);
    let seen = look("running", fleet.port, "load", "Running", "in a running task", true);
    let listed = shown("load", &job.state);
    assert_eq!(listed["status"], "incomplete");
    let progress = format!("{} of {} splits", count(&listed["splits_done"]), count(&listed["splits"]));
    assert_eq!(seen["figures"]["job"]["Progress"]["unit"], progress.as_str(), "{seen}");
    assert_eq!((&seen["chosen"], &seen["stillRunning"]), (&"Keep it running".into(), &true.into()));
    assert!(!seen["picture"].as_str().unwrap().contains(" 0 in a running task") && seen["drawn"].as_u64().unwrap() > 100, "{seen}");
    assert_eq!(seen["figures"]["overview"]["Executors"]["value"], "2");
    for executor in seen["executors"].as_array().unwrap() {
        let told = executor.as_str().unwrap();
        assert!(told.contains("of 2 slots in use") && told.contains(" MiB, at most ") && told.contains("version 0.1.0, heard"), "{told}");
    }
    let settings = &seen["settings"];
    assert_eq!((&settings["MONGODB_PASSWORD"], &settings["MONGODB_USERNAME"]), (&"hidden".into(), &"hidden".into()), "{settings}");
    assert_eq!((&settings["executor-timeout-seconds"], &settings["ballista.planner.adaptive.enabled"]), (&"7".into(), &"false".into()));
    let nodes: Vec<&str> = seen["nodes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for node in ["ShuffleWriterExec", "WriteExec", "ProjectionExec", "BlobScanExec", "ShuffleReaderExec", "AggregateExec"] {
        assert!(
            nodes.iter().any(|name| *name == node || (node == "ShuffleReaderExec" && *name == "UnresolvedShuffleExec")),
            "{node}: {nodes:?}"
        );
    }
    assert!(seen["stages"][0].as_str().unwrap().contains("running"), "{}", seen["stages"]);
    assert_eq!(seen["cancelled"], 200);
    run.wait().expect_last_line(1, &["load", "cancelled", "again"]);

    proxy.arm(Fault::None);
    proxy.cut();
    let run = job.call().start();
    // What the nodes did is what the job did: the projection hands on what the writer writes, in copies of it, one a split.
    let did = |plan: &Value, node: &str, metric: &str| -> Vec<f64> {
        let nodes = plan["nodes"].as_array().into_iter().flatten().filter(|found| found["name"] == node);
        let metrics = nodes.flat_map(|node| node["metrics"].as_array().into_iter().flatten()).filter(|found| found["name"] == metric);
        metrics.filter_map(|metric| metric["value"].as_f64()).collect()
    };
    let mut plan = Value::Null;
    wait_until("a finished task has told what its nodes did", || {
        plan = fleet.get("/api/baler/jobs/load").map(|detail| detail["plan"].clone()).unwrap_or_default();
        did(&plan, "WriteExec", "documents").iter().sum::<f64>() > 0.0
    });
    // The three projections of the statement, one after the other.
    let documents = did(&plan, "WriteExec", "documents")[0];
    assert_eq!(did(&plan, "ProjectionExec", "output_rows"), [documents; 3], "{plan}");
    assert_eq!(did(&plan, "BlobScanExec", "output_rows"), [documents], "{plan}");
    assert!(did(&plan, "ProjectionExec", "elapsed_compute").iter().sum::<f64>() > 0.0, "{plan}");
    run.wait().expect_code(0);
    // Another scheduler knows nothing of the job but what is in its folder.
    fleet.kill_scheduler();
    fleet.start_scheduler();
    fleet.wait_executors(2);
    let seen = look("done", fleet.port, "load", "Done", "done", false);
    let listed = shown("load", &job.state);
    let job_figures = &seen["figures"]["job"];
    assert_eq!(job_figures["Documents"]["value"], count(&listed["commit"]["documents"]).as_str());
    assert_eq!(job_figures["Documents"]["unit"], format!("{} records", count(&listed["commit"]["records"])).as_str());
    assert_eq!(seen["figures"]["overview"]["Documents"]["value"], count(&listed["commit"]["documents"]).as_str());
    assert!(seen["picture"].as_str().unwrap().contains("1 with dead letters"), "{}", seen["picture"]);
    let row = seen["rows"][0].as_str().unwrap();
    assert!(row.starts_with("load") && row.contains(&count(&listed["commit"]["documents"])), "{row}");
    // The API answers what the command line prints.
    let answered: Value = fleet.get("/api/baler/jobs").unwrap();
    assert_eq!(answered, json!([listed]));
    for path in ["/api/baler/overview", "/api/baler/jobs/load", "/"] {
        assert!(!get(fleet.port, path).unwrap().contains(&login.password), "{path}");
    }
}

/// A job with the dashboard of its process at a port, whose way to the database can be cut.
fn proxied_job() -> (Job<'static>, Proxy, u16) {
    let mongo = Mongo::shared();
    let (proxy, port) = (Proxy::start(mongo.port, Protocol::Mongo), free_port());
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port));
    job.sink_options.push(("mongodb.batch_docs", "4"));
    job.add_file("long.jsonl", &lines(3, 12 << 20, "\n"));
    job.variables = vec![("BALER_DASHBOARD".to_string(), port.to_string())];
    (job, proxy, port)
}

#[test]
fn one_process_shows_its_job_and_is_stopped_from_the_page() {
    let (mut job, proxy, port) = proxied_job();
    let run = start_held(&job, &proxy);
    let seen = look("process", port, "load", "Running", "in a running task", true);
    let did: Vec<&str> = seen["did"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(did.iter().any(|line| line.starts_with("documents ")) && did.iter().any(|line| line.starts_with("source bytes ")), "{did:?}");
    let ended = run.wait().expect_code(1);
    assert!(ended.stderr.contains("was cancelled; run the same command again"), "{}", ended.stderr);
    proxy.arm(Fault::None);
    proxy.cut();
    job.variables.clear();
    job.run();
}

/// A POST or PATCH which a page of `origin` sends, or nobody's page.
fn ask(port: u16, call: &str, origin: Option<&str>) -> u16 {
    let origin = origin.map(|origin| format!("origin: {origin}\r\n")).unwrap_or_default();
    let text = format!(
        "{call} HTTP/1.1\r\nhost: localhost:{port}\r\n{origin}x-baler-action: cancel\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    request(port, &text).unwrap().0
}

#[test]
fn no_page_of_another_origin_cancels_a_job() {
    let (mongo, state) = (Mongo::shared(), Scratch::new());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let fleet = fleet_over(&state, &[]);
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port)).on(&fleet);
    job.state = format!("file://{}", state.path().display());
    job.sink_options.push(("mongodb.batch_docs", "4"));
    job.add_file("a.jsonl", &lines(80, 8 << 20, "\n"));
    let mut run = start_held(&job, &proxy);
    let running =
        fleet.get("/api/jobs").unwrap().as_array().unwrap().iter().find(|job| job["status"] == "Running").unwrap()["job_id"].clone();
    let (ours, ballistas) = ("POST /api/baler/jobs/load/cancel".to_string(), format!("PATCH /api/job/{}", running.as_str().unwrap()));
    // The second one is allowed by Ballista's own defaults, and is where port-forward.sh puts Airflow.
    for origin in ["https://elsewhere.example", "http://localhost:8080", "http://localhost", "null"] {
        assert_eq!([&ours, &ballistas].map(|call| ask(fleet.port, call, Some(origin))), [403, 403], "{origin}");
    }
    // A form of another page sends no header of its own, and old browsers name no origin.
    let form = format!(
        "POST /api/baler/jobs/load/cancel HTTP/1.1\r\nhost: localhost:{}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        fleet.port
    );
    assert_eq!(request(fleet.port, &form).unwrap().0, 403);
    assert!(run.is_running() && fleet.jobs().iter().any(|(_, status)| status == "Running"));
    let own = format!("http://localhost:{}", fleet.port);
    assert_eq!(ask(fleet.port, &ours, Some(&own)), 200);
    run.wait().expect_last_line(1, &["load", "cancelled", "again"]);
    proxy.arm(Fault::None);
}

#[test]
fn the_plan_of_a_job_is_that_of_all_its_waves_and_each_can_be_chosen() {
    let state = Scratch::new();
    let fleet = fleet_over(&state, &[]);
    let mut job = Job::new().on(&fleet);
    job.state = format!("file://{}", state.path().display());
    for number in 0..60 {
        job.add_file(&format!("{number:02}.jsonl"), &lines(number, 200_000, "\n"));
    }
    job.run();
    let detail = |query: &str| fleet.get(&format!("/api/baler/jobs/load{query}")).unwrap();
    let documents = |detail: &Value| -> f64 {
        let nodes = detail["plan"]["nodes"].as_array().into_iter().flatten().filter(|node| node["name"] == "WriteExec");
        let metrics = nodes.flat_map(|node| node["metrics"].as_array().into_iter().flatten());
        metrics.filter(|metric| metric["name"] == "documents").filter_map(|metric| metric["value"].as_f64()).sum()
    };
    let all = detail("");
    let parts = all["parts"].as_array().unwrap();
    let each: Vec<f64> = parts.iter().map(|part| documents(&detail(&format!("?part={}", part["id"].as_str().unwrap())))).collect();
    assert!(each.iter().filter(|documents| **documents > 0.0).count() > 1, "{each:?} of {parts:?}");
    assert_eq!(documents(&all), each.iter().sum::<f64>(), "{each:?}");
    // Waves which are under way when the last receipt is there are stopped, and tell nothing of their last tasks.
    assert!(documents(&all) <= all["summary"]["commit"]["documents"].as_f64().unwrap(), "{all}");
    let name = all["plan"]["name"].as_str().unwrap();
    assert!(name.ends_with(" waves of attempt 1"), "{name}");
    let stages = all["stages"].as_array().unwrap();
    assert!(parts.iter().all(|part| stages.iter().any(|stage| stage["part"] == part["name"])), "{stages:?}");

    let url = format!("http://127.0.0.1:{}", fleet.port);
    let seen = look_with("waves.mjs", &json!({ "name": "waves", "url": url, "job": "load" }));
    let names: Vec<&Value> = parts.iter().map(|part| &part["name"]).collect();
    assert_eq!(seen["choices"][0], "all waves");
    assert_eq!(seen["choices"].as_array().unwrap()[1..].iter().collect::<Vec<_>>(), names);
    assert_eq!((&seen["together"], &seen["chosen"], &seen["focused"]), (&all["plan"]["name"], names[0], &"select".into()));
}

#[test]
fn what_is_nowhere_is_not_found() {
    let fleet = Fleet::start(0, &[]);
    let status = |head: &str| request(fleet.port, &format!("{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).unwrap().0;
    for path in ["/nowhere", "/api/nowhere", "/api/baler/nowhere", "/assets/nowhere.js", "/metrics/x", "/index.html"] {
        assert_eq!(status(&format!("GET {path}")), 404, "{path}");
    }
    assert_eq!([status("GET /"), status("GET /healthz"), status("GET /api/jobs")], [200; 3]);
    // gRPC says it in its own way, and not by the status of HTTP.
    let call = "POST /ballista.protobuf.SchedulerGrpc/Nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\n\
                content-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(request(fleet.port, call).unwrap().0, 200);
}

#[test]
fn a_task_of_a_lost_executor_is_shown_as_tried_again() {
    let (mongo, state) = (Mongo::shared(), Scratch::new());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut fleet = fleet_over(&state, &[]);
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port)).on(&fleet);
    job.state = format!("file://{}", state.path().display());
    job.sink_options.push(("mongodb.batch_docs", "4"));
    job.add_file("a.jsonl", &lines(81, 12 << 20, "\n"));
    let run = start_held(&job, &proxy);
    fleet.kill_executor(0);
    let failed = |fleet: &Fleet| {
        let stages = fleet.get("/api/baler/jobs/load").map(|detail| detail["stages"].clone()).unwrap_or_default();
        stages.as_array().into_iter().flatten().filter_map(|stage| stage["failed"].as_u64()).sum::<u64>()
    };
    wait_until("the scheduler notices the loss", || failed(&fleet) > 0);
    let seen = look("lost", fleet.port, "load", "Running", "in a running task", false);
    let stages: Vec<&str> = seen["stages"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // Cells are told apart by tabs: wave, stage, state, tasks, tried again.
    let again: u64 = stages.iter().filter_map(|row| row.split('\t').nth(4)?.trim().parse::<u64>().ok()).sum();
    assert_eq!(again, failed(&fleet), "{stages:?}");
    proxy.arm(Fault::None);
    proxy.cut();
    run.wait().expect_code(0);
}

#[test]
fn retries_are_counted_by_prometheus_and_on_the_page_alike() {
    let (job, proxy, port) = proxied_job();
    let prometheus = Prometheus::start(&[("driver", port)]);
    // MongoDB's driver tries a write once more by itself, so that more cuts are needed than there are writers.
    proxy.arm(Fault::CutWrites { writes: 2, times: 24 });
    let mut run = job.call().start();
    assert!(run.runs_until("all cuts were made", || proxy.fired() >= 24));
    proxy.arm(Fault::Stall { writes: 2 });
    assert!(run.runs_until("writes hang", || proxy.fired() > 24));
    let retries = || {
        let overview: Value = get(port, "/api/baler/overview").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        overview["retries"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["kind"] == "sink_write")
            .filter_map(|one| one["count"].as_u64())
            .sum::<u64>()
    };
    assert!(run.runs_until("retries are counted", || retries() > 0));
    wait_until("Prometheus says the same", || prometheus.value("sum(baler_retries_total{kind=\"sink_write\"})") == Some(retries() as f64));
    let before = retries();
    let seen = look("retries", port, "load", "Running", "in a running task", true);
    let shown = &seen["figures"]["job"]["Tried again"];
    // A writer may have been in its pause before.
    assert!(
        shown["value"].as_str().and_then(|text| text.parse::<u64>().ok()).is_some_and(|value| value >= before && value < before + 24),
        "{seen}"
    );
    assert!(shown["unit"].as_str().unwrap().contains("sink_write"), "{shown}");
    run.wait().expect_code(1);
    proxy.arm(Fault::None);
}

/// Starts that many executors which only register and send heartbeats.
fn crowd(fleet: &Fleet, count: usize) -> Server {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/crowd.mjs");
    let version = fleet.get("/api/baler").unwrap()["version"].as_str().unwrap().to_string();
    let mut command = Command::new("node");
    command.arg(script).args([fleet.port.to_string(), count.to_string(), version]);
    let mut server = Server::start(&random_name("crowd"), &mut command);
    server.wait_ready(|| fleet.executors_alive() == Some(count));
    server
}

/// A real job of 16,000 splits runs while the page shows it, and 1,000 executors besides. What a look costs the page is counted, not timed:
/// times are printed for whoever wants them.
#[test]
fn sixteen_thousand_splits_and_a_thousand_executors_are_shown_while_they_change() {
    const SPLITS: usize = 16_000;
    let (state, fleet_flags) = (Scratch::new(), ["--executor-timeout-seconds", "60"]);
    let folder = state.path().display().to_string();
    let fleet = Fleet::start_with(0, &[], &[&fleet_flags[..], &["--state", &folder]].concat());
    let _crowd = crowd(&fleet, 1000);
    let mut job = Job::new();
    job.state = format!("file://{folder}");
    // Objects of one line each: a split has a receipt, a part of the dump, and nothing else to do.
    for number in 0..SPLITS {
        job.add_file(&format!("{number:05}.jsonl"), format!("{{\"n\":{number}}}\n").as_bytes());
    }
    browser::install();
    let mut run = job.call().start();
    assert!(run.runs_until("the job has begun", || state.join("load/manifest.json").exists()));
    let url = format!("http://127.0.0.1:{}", fleet.port);
    let seen = look_with("crowd-page.mjs", &json!({ "name": "many", "url": url, "job": "load", "executors": 1000, "splits": SPLITS }));
    run.wait().expect_code(0);
    say(&format!("a page of {SPLITS} splits and 1,000 executors: {}", seen["cost"]));
    assert_eq!(seen["figures"]["Executors"]["value"], "1,000");
    assert_eq!(seen["tiles"], 1000);
    // A look writes texts anew and builds no tile: else each would cost the layout of a thousand.
    assert_eq!(seen["tilesBuilt"], 0, "{seen}");
    // The picture changed under the reader's eyes.
    assert!(seen["pictures"].as_array().unwrap().len() > 1, "{seen}");
    assert!(seen["drawn"].as_u64().unwrap() > SPLITS as u64 * 4, "{}", seen["drawn"]);
    assert_eq!(seen["done"], format!("{SPLITS} done, 0 in a running task, 0 waiting, 0 with dead letters").as_str());
}

#[test]
fn the_page_of_the_stack_probes_its_services_and_shows_the_pipeline() {
    let (state, mut job) = (Scratch::new(), Job::new());
    let folder = state.path().display().to_string();
    job.state = format!("file://{folder}");
    job.add_file("a.jsonl", &lines(3, 3 << 20, "\n"));
    job.run();
    job.name = "second".to_string();
    job.sink = baler_tests::job::Sink::Bson(job.scratch.join("second"));
    job.run();
    let listed = shown("load", &job.state);
    // By TLS and with a token, as a laptop's cluster has it.
    let authority = Authority::make(&job.scratch.join("authority"));
    let member = authority.issue("member", &["fleet.test"], 30);
    let (roles, token) = (job.scratch.join("roles"), random_name("token"));
    std::fs::write(&roles, format!("member fleet dns:fleet.test\nread laptop sha256:{}\n", sha256(&token))).unwrap();
    let variables =
        [("BALER_STATE", folder.clone()), ("BALER_ACCESS", roles.display().to_string())].map(|(name, value)| (name.to_string(), value));
    let readable = ("BALER_CORS_ALLOWED_ORIGINS".to_string(), "null".to_string());
    let fleet = Fleet::start_secure(1, &member, &[&variables[..], &[readable]].concat());
    let closed = Fleet::start_secure(1, &member, &variables);
    let prometheus = Prometheus::start(&[("baler", free_port())]);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/dashboard.html");
    let (address, secure) = (|port: u16| format!("http://127.0.0.1:{port}"), |port: u16| format!("https://127.0.0.1:{port}"));
    let seen = look_with(
        "stack.mjs",
        &json!({
            "name": "stack", "page": format!("file://{}", page.canonicalize().unwrap().display()), "baler": secure(fleet.port), "closed": secure(closed.port),
            "token": token, "trusting": true, "prometheus": address(prometheus.port), "minio": Minio::plain().endpoint, "nobody": address(free_port()),
        }),
    );
    assert_eq!(
        seen["states"],
        json!({ "Baler": "Answers", "Airflow": "No answer", "MinIO": "Answers", "Grafana": "No answer", "Prometheus": "Answers" })
    );
    assert_eq!(seen["live"], "Live, from the scheduler");
    let row = seen["jobs"][0].as_str().unwrap();
    let splits = format!("{0} of {0}", count(&listed["splits"]));
    assert!(
        row.starts_with("load") && row.contains("Done") && row.contains(&count(&listed["commit"]["documents"])) && row.contains(&splits),
        "{row}"
    );
    assert_eq!(seen["jobs"].as_array().unwrap().len(), 2);
    assert!(seen["link"].as_str().unwrap().starts_with(&format!("{}/#/job/load", secure(fleet.port))), "{}", seen["link"]);
    assert!(seen["flow"][1].as_str().unwrap().contains("0 of 2 slots in use"), "{}", seen["flow"]);
    // Addresses are kept; what is no web address never becomes a link; a scheduler which was not told so lets no page read.
    assert_eq!((&seen["kept"], &seen["forgotten"]), (&address(prometheus.port).into(), &"".into()));
    assert_eq!((&seen["wrong"], &seen["wrongLink"]), (&"No web address".into(), &Value::Null));
    assert!(seen["refused"].as_str().unwrap().contains("--cors-allowed-origins has to name null"), "{}", seen["refused"]);
    assert_eq!(
        seen["defaults"],
        json!([
            "https://localhost:50050",
            "http://localhost:8080",
            "https://localhost:9001",
            "http://localhost:3000",
            "http://localhost:9090"
        ])
    );
    // These are the script's, and each service of the page is forwarded by it.
    let script = std::fs::read_to_string(page.with_file_name("port-forward.sh")).unwrap();
    for address in seen["defaults"].as_array().unwrap() {
        assert!(script.contains(address.as_str().unwrap()), "{address}");
    }
    // From a page nothing can be changed, whether it may read or not, and whoever's certificate its browser shows.
    let cancel = member.request(fleet.port, "POST", "/api/baler/jobs/load/cancel", "origin: null\r\nx-baler-action: cancel\r\n");
    assert_eq!(cancel.unwrap().0, 403);
    // A browser which asks before it sends a token is told that it may send this and nothing more.
    let asks = "origin: null\r\naccess-control-request-method: POST\r\naccess-control-request-headers: x-baler-action\r\n";
    let (head, _) = authority.stranger().talk(
        fleet.port,
        &format!("OPTIONS /api/baler/jobs/load/cancel HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n{asks}\r\n", fleet.port),
    );
    assert!(head.contains("access-control-allow-headers: authorization\r\n") && !head.contains("x-baler-action"), "{head}");
    assert_eq!(authority.stranger().request(closed.port, "OPTIONS", "/api/baler/overview", "origin: null\r\n").unwrap().0, 405);
}

#[test]
fn a_query_is_shown_with_its_lag_and_micro_batches() {
    let topic = Kafka::shared().topic(3, &[("retention.ms", "3600000")]);
    let (feed, port) = (Feed::new(&topic), free_port());
    let send = |count: usize| topic.send((0..count).map(|number| ((number % 3) as i32, Record::new(format!("{{\"n\":{number}}}")))));
    send(90);
    let dashboard = [("BALER_DASHBOARD".to_string(), port.to_string())];
    let mut run = feed.stream_call(&["--trigger", "200ms"]).envs(&dashboard).start();
    for batches in 1..4 {
        wait_until("a batch is committed", || feed.batches("commits") >= batches || !run.is_running());
        send(300);
    }
    wait_until("all is committed", || feed.batches("commits") >= 4 || !run.is_running());
    let seen = look("query", port, "feed", "Running", "", false);
    let listed = shown("feed", &feed.state().display().to_string());
    assert_eq!(seen["figures"]["job"]["Micro-batches"]["value"], count(&listed["splits_done"]).as_str(), "{seen}");
    assert_eq!(seen["figures"]["job"]["Lag"]["value"], count(&listed["query"]["lag_records"]).as_str());
    assert!(seen["text"].as_str().unwrap().contains("Lag by partition"));
    run.terminate().expect_code(0);
}
