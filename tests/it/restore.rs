//! `baler restore`: the original objects come back, whatever is killed; what is damaged does not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use baler_tests::corpus::{self, Shape, lines};
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Sink, files};
use baler_tests::minio::{Bucket, Minio};
use baler_tests::mongo::{Collection, Mongo};
use baler_tests::proxy::{Fault, Protocol, Proxy};
use bson::{Document, doc};
use serde_json::Value;

/// Name below the target → bytes.
type Names = BTreeMap<String, Vec<u8>>;

fn below(folder: &Path) -> Names {
    let name = |path: &Path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
    files(folder).iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

fn in_bucket(bucket: &Bucket, prefix: &str) -> Names {
    bucket.list(prefix).into_iter().map(|key| (key.strip_prefix(prefix).unwrap().to_string(), bucket.get(&key))).collect()
}

/// Asserts that exactly these objects are there, byte for byte, and nothing else, not even a hidden file.
#[track_caller]
fn expect_same(found: &Names, expected: &Names) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{name} came back otherwise: {} bytes, not {}", found[name].len(), bytes.len());
    }
}

/// Text in all its forms, names of all sorts, and no text: nothing compressed.
fn plain_shapes() -> Vec<Shape> {
    [corpus::texts(), corpus::odd_names()].concat()
}

/// The compressed shapes, each form in a folder of its own: their names are equal without their suffixes.
fn compressed_shapes() -> Vec<Shape> {
    let mut shapes = corpus::compressed();
    for shape in &mut shapes {
        shape.name = format!("{}/{}", shape.name.rsplit('.').next().unwrap(), shape.name);
    }
    shapes
}

fn contents(shapes: &[Shape], name_of: impl Fn(&str) -> String) -> Names {
    shapes.iter().map(|shape| (name_of(&shape.name), shape.content.clone())).collect()
}

/// What a name is without the suffix of a compression.
fn plain_name(name: &str) -> String {
    let suffix = [".gz", ".zst", ".bz2", ".xz"].into_iter().find(|suffix| name.ends_with(suffix));
    name.strip_suffix(suffix.unwrap_or_default()).unwrap().to_string()
}

fn decompress(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    match name.rsplit('.').next() {
        Some("gz") => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut content).unwrap(),
        Some("zst") => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut content).unwrap(),
        Some("bz2") => bzip2::read::MultiBzDecoder::new(bytes).read_to_end(&mut content).unwrap(),
        Some("xz") => liblzma::read::XzDecoder::new_multi_decoder(bytes).read_to_end(&mut content).unwrap(),
        _ => return bytes.to_vec(),
    };
    content
}

/// Runs the job over the shapes; its input folder is what must come back.
fn comes_back(mut job: Job<'_>, shapes: &[Shape], boundary: &'static str) {
    job.source_options.push(("blob.boundary", boundary));
    job.add_shapes(shapes);
    job.run();
    let to = job.scratch.join("back");
    let report = job.restore(to.to_str().unwrap(), &[]);
    assert_eq!((report["objects"].as_u64(), report["written"].as_u64()), (Some(shapes.len() as u64), Some(shapes.len() as u64)));
    expect_same(&below(&to), &below(&job.scratch.join("input")));
    for path in files(&to) {
        let source = job.scratch.join("input").join(path.strip_prefix(&to).unwrap());
        let millis =
            |path: &Path| fs::metadata(path).unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(millis(&path), millis(&source), "the time of {}", path.display());
    }
}

fn collection_job() -> Job<'static> {
    Job::new().into_collection(Mongo::shared().collection())
}

#[test]
fn objects_of_every_shape_are_restored_from_a_dump() {
    comes_back(Job::new(), &plain_shapes(), "line");
}

#[test]
fn objects_of_every_shape_are_restored_from_a_collection() {
    comes_back(collection_job(), &plain_shapes(), "line");
}

#[test]
fn binary_objects_are_restored_from_both_sinks() {
    comes_back(Job::new(), &[corpus::binary()], "none");
    comes_back(collection_job(), &[corpus::binary()], "none");
}

/// Restores compressed objects plain, and compressed again.
fn compressed_come_back(job: &Job<'_>) {
    let shapes = compressed_shapes();
    job.add_shapes(&shapes);
    job.run();
    let (plain, packed) = (job.scratch.join("plain"), job.scratch.join("packed"));
    let report = job.restore(plain.to_str().unwrap(), &[]);
    assert_eq!(report["compressed"].as_u64(), Some(shapes.len() as u64));
    expect_same(&below(&plain), &contents(&shapes, plain_name));
    job.restore(packed.to_str().unwrap(), &["--recompress"]);
    let found = below(&packed);
    assert!(found.iter().all(|(name, bytes)| name.ends_with(".log") || bytes.len() < 1_000_000), "something is not compressed");
    let decompressed = found.iter().map(|(name, bytes)| (name.clone(), decompress(name, bytes))).collect();
    expect_same(&decompressed, &contents(&shapes, str::to_string));
}

#[test]
fn compressed_objects_are_restored_from_a_dump() {
    compressed_come_back(&Job::new());
}

#[test]
fn compressed_objects_are_restored_from_a_collection() {
    compressed_come_back(&collection_job());
}

#[test]
fn objects_which_would_have_one_name_are_refused_before_anything_is_written() {
    let job = Job::new();
    job.add_file("a.txt", b"plain\n");
    job.add_file("a.txt.gz", &corpus::gzip(b"packed\n"));
    job.run();
    let to = job.scratch.join("back");
    let to = to.to_str().unwrap();
    job.restore_call(to, &[]).run().expect_one_line(1, &["a.txt.gz", "a.txt", "--recompress"]);
    assert!(!Path::new(to).exists());
    job.restore(to, &["--recompress"]);
    assert_eq!(below(Path::new(to)).len(), 2);
}

/// A job from a bucket, and its objects by name.
fn bucket_job<'a>(server: &Minio, bucket: &Bucket, shapes: &[Shape]) -> Job<'a> {
    let objects: Vec<_> = shapes.iter().map(|shape| (format!("in/{}", shape.name), shape.stored.clone())).collect();
    bucket.put_all(&objects);
    Job { input: bucket.url("in/"), variables: server.environment(), ..Job::new() }
}

#[test]
fn objects_of_every_shape_are_restored_into_a_bucket_from_both_sinks() {
    let (server, mongo) = (Minio::plain(), Mongo::shared());
    let bucket = server.make_bucket();
    let job = bucket_job(server, &bucket, &plain_shapes());
    job.run();
    job.restore(&bucket.url("from-dump/"), &[]);
    let expected = in_bucket(&bucket, "in/");
    expect_same(&in_bucket(&bucket, "from-dump/"), &expected);
    let job = Job { name: "second".into(), ..job.into_collection(mongo.collection()) };
    job.run();
    job.restore(&bucket.url("from-collection"), &[]);
    expect_same(&in_bucket(&bucket, "from-collection/"), &expected);
    // And down to files, from a bucket's objects.
    let to = job.scratch.join("back");
    job.restore(to.to_str().unwrap(), &[]);
    expect_same(&below(&to), &expected);
}

#[test]
fn an_object_of_many_parts_is_restored_into_a_bucket() {
    let (server, bucket) = (Minio::plain(), Minio::plain().make_bucket());
    let mut job = Job { variables: server.environment(), ..Job::new() };
    job.source_options = vec![("blob.boundary", "none")];
    let bytes = corpus::Random::new(70).bytes(35 << 20);
    job.add_file("noise.bin", &bytes);
    job.run();
    job.restore(&bucket.url("back"), &[]);
    expect_same(&in_bucket(&bucket, "back/"), &Names::from([("noise.bin".to_string(), bytes)]));
}

#[test]
fn names_keep_their_relation_to_a_glob_and_to_a_single_object() {
    let mut job = Job::new();
    job.add_file("2026/a/1.log", b"one\n");
    job.add_file("2026/b/2.log", b"two\n");
    let single = job.add_file("2026/b/3.txt", b"three\n");
    let folder = job.input.clone();
    for (name, input, expected) in
        [("glob", format!("{folder}2026/*/*.log"), vec!["a/1.log", "b/2.log"]), ("single", single, vec!["3.txt"])]
    {
        (job.name, job.input) = (name.to_string(), input);
        job.sink = Sink::Bson(job.scratch.join(&format!("dump-{name}")));
        job.run();
        let to = job.scratch.join(&format!("back-{name}"));
        job.restore(to.to_str().unwrap(), &[]);
        assert_eq!(below(&to).into_keys().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_second_restore_writes_nothing_and_what_is_lost_is_written_again() {
    let job = Job::new();
    job.add_shapes(&plain_shapes());
    job.run();
    let to = job.scratch.join("back");
    let target = to.to_str().unwrap();
    job.restore(target, &[]);
    let inodes = || files(&to).iter().map(|path| fs::metadata(path).unwrap().ino()).collect::<Vec<_>>();
    let before = inodes();
    let report = job.restore(target, &[]);
    assert_eq!((report["written"].as_u64(), report["documents"].as_u64()), (Some(0), Some(0)));
    assert_eq!(inodes(), before, "a file was written again");
    fs::remove_file(to.join("crlf.txt")).unwrap();
    assert_eq!(job.restore(target, &[])["written"].as_u64(), Some(1));
    expect_same(&below(&to), &below(&job.scratch.join("input")));

    let (server, bucket) = (Minio::plain(), Minio::plain().make_bucket());
    let job = Job { variables: server.environment(), ..job };
    job.restore(&bucket.url("back"), &[]);
    assert_eq!(job.restore(&bucket.url("back"), &[])["written"].as_u64(), Some(0));
}

#[test]
fn what_else_is_at_an_objects_place_is_replaced_only_where_that_is_asked_for() {
    let (server, bucket) = (Minio::plain(), Minio::plain().make_bucket());
    let job = Job { variables: server.environment(), ..Job::new() };
    job.add_file("a.txt", b"the original\n");
    job.run();
    let to = job.scratch.join("back");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("a.txt"), b"something of mine").unwrap();
    bucket.put("back/a.txt", b"the original\n");
    for target in [to.to_str().unwrap(), &bucket.url("back")] {
        job.restore_call(target, &[]).run().expect_one_line(1, &["a.txt", "something else", "--overwrite"]);
        assert_eq!(fs::read(to.join("a.txt")).unwrap(), b"something of mine");
        assert_eq!(job.restore(target, &["--overwrite"])["written"].as_u64(), Some(1));
        fs::write(to.join("a.txt"), b"something of mine").unwrap();
    }
    assert_eq!(bucket.get("back/a.txt"), b"the original\n");
}

/// More than are open at once, so that some are whole when others have not begun.
const OBJECTS: usize = 100;

/// A job of many objects whose documents come through a proxy.
fn behind_a_proxy() -> (Job<'static>, Proxy) {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let job = Job::new().into_collection(mongo.collection_at(proxy.port));
    for number in 0..OBJECTS as u64 {
        job.add_file(&format!("{}/{number}.jsonl", number % 3), &lines(200 + number, 200_000, "\n"));
    }
    job.run();
    (job, proxy)
}

#[test]
fn a_restore_killed_in_the_middle_goes_on_and_writes_nothing_twice() {
    let (job, proxy) = behind_a_proxy();
    let to = job.scratch.join("back");
    let whole = || {
        let found = files(&to).into_iter().filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
        found.map(|path| (fs::metadata(&path).unwrap().ino(), path)).collect::<Vec<_>>()
    };
    let mut kills = 0;
    for bytes in [800_000, 800_000] {
        let stalls = proxy.fired();
        proxy.arm(Fault::StallReplies { bytes });
        let before = whole();
        let mut run = job.restore_call(to.to_str().unwrap(), &[]).start();
        let is_stuck = || proxy.fired() > stalls && whole().len() > before.len();
        assert!(run.runs_until("the database is silent, and something is whole", is_stuck), "the restore ended before the stall");
        assert_eq!(run.kill().signal, Some(9));
        kills += 1;
        proxy.cut();
        proxy.arm(Fault::None);
        let after = whole();
        assert!(after.len() > before.len() && after.len() < OBJECTS, "{} of {OBJECTS} objects are there", after.len());
        assert!(before.iter().all(|file| after.contains(file)), "a whole object was written again");
        // What has its name is whole.
        let input = below(&job.scratch.join("input"));
        for (_, path) in &after {
            assert!(fs::read(path).unwrap() == input[path.strip_prefix(&to).unwrap().to_str().unwrap()]);
        }
    }
    let before = whole();
    let report = job.restore(to.to_str().unwrap(), &[]);
    assert_eq!((kills, report["written"].as_u64()), (2, Some((OBJECTS - before.len()) as u64)));
    assert!(before.iter().all(|file| whole().contains(file)), "a whole object was written again");
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

#[test]
fn a_restore_which_is_told_to_stop_says_how_to_go_on() {
    let (job, proxy) = behind_a_proxy();
    let to = job.scratch.join("back");
    proxy.arm(Fault::StallReplies { bytes: 400_000 });
    let mut run = job.restore_call(to.to_str().unwrap(), &[]).start();
    assert!(run.runs_until("the database is silent", || proxy.fired() > 0), "the restore ended before the stall");
    let text = run.terminate().expect_code(1).stderr;
    assert!(text.contains("again") && text.contains(&job.name), "{text}");
    proxy.cut();
    proxy.arm(Fault::None);
    job.restore(to.to_str().unwrap(), &[]);
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

#[test]
fn a_connection_which_is_cut_while_documents_are_read_is_made_again() {
    let (job, proxy) = behind_a_proxy();
    let to = job.scratch.join("back");
    proxy.arm(Fault::CutReplies { bytes: 300_000, times: 4 });
    job.restore(to.to_str().unwrap(), &[]);
    assert_eq!(proxy.fired(), 4, "the connections were cut");
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

#[test]
fn a_fleet_restores_what_one_process_restores() {
    let server = Minio::plain();
    let bucket = server.make_bucket();
    let fleet = Fleet::start(2, &server.environment());
    let mut job = bucket_job(server, &bucket, &plain_shapes()).on(&fleet);
    job.sink = Sink::S3(&bucket, "dump".to_string());
    job.state = bucket.url("state");
    job.run();
    let report = job.restore(&bucket.url("back"), &[]);
    assert_eq!(report["written"].as_u64(), Some(plain_shapes().len() as u64));
    expect_same(&in_bucket(&bucket, "back/"), &in_bucket(&bucket, "in/"));
    let waves: Vec<_> = fleet.jobs().into_iter().filter(|(name, _)| name.starts_with("load restore wave")).collect();
    assert!(!waves.is_empty() && waves.iter().all(|(_, status)| status == "Completed"), "{waves:?}");
    assert_eq!(job.restore(&bucket.url("back"), &[])["written"].as_u64(), Some(0));
    job.scheduler = None;
    job.restore(&bucket.url("alone"), &[]);
    expect_same(&in_bucket(&bucket, "alone/"), &in_bucket(&bucket, "back/"));
}

#[test]
fn a_restore_whose_executor_is_killed_ends_complete() {
    let (job, proxy) = behind_a_proxy();
    let mut fleet = Fleet::start(2, &[]);
    let job = job.on(&fleet);
    let to = job.scratch.join("back");
    proxy.arm(Fault::StallReplies { bytes: 500_000 });
    let mut run = job.restore_call(to.to_str().unwrap(), &[]).start();
    assert!(run.runs_until("the database is silent", || proxy.fired() > 0), "the restore ended before the stall");
    fleet.kill_executor(0);
    proxy.arm(Fault::None);
    proxy.cut();
    run.wait().expect_code(0);
    fleet.wait_executors(1);
    // What the killed one left behind under a hidden name was taken over.
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

#[test]
fn a_restore_whose_scheduler_is_killed_ends_complete_on_the_next_one() {
    let (job, proxy) = behind_a_proxy();
    let mut fleet = Fleet::start(2, &[]);
    let job = job.on(&fleet);
    let to = job.scratch.join("back");
    proxy.arm(Fault::StallReplies { bytes: 500_000 });
    let mut run = job.restore_call(to.to_str().unwrap(), &[]).start();
    assert!(run.runs_until("the database is silent", || proxy.fired() > 0), "the restore ended before the stall");
    fleet.kill_scheduler();
    proxy.arm(Fault::None);
    proxy.cut();
    fleet.start_scheduler();
    run.wait().expect_code(0);
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

/// A finished job in a collection, and a document from the middle of its largest object.
fn finished() -> (Job<'static>, Document) {
    let job = collection_job();
    job.add_shapes(&corpus::texts());
    job.run();
    let mut documents = job.sink.read().documents;
    documents.retain(|found| found.get_str("object").unwrap().ends_with("/lines.jsonl"));
    documents.sort_by_key(|found| found.get_i64("byte_offset").unwrap());
    let victim = documents.swap_remove(documents.len() / 2);
    (job, victim)
}

fn collection<'a>(job: &'a Job<'_>) -> &'a Collection<'a> {
    match &job.sink {
        Sink::Mongo(collection) => collection,
        other => panic!("{other:?} is no collection"),
    }
}

/// Asserts one clear error which names object and byte, that nothing of the object is there, and that the others can be had.
#[track_caller]
fn refuses(job: &Job<'_>, words: &[&str]) {
    let to = job.scratch.join("back");
    job.restore_call(to.to_str().unwrap(), &[]).run().expect_one_line(1, &[&["lines.jsonl", "byte "], words].concat());
    assert!(!to.join("lines.jsonl").exists(), "an object which is not whole has its name");
    let report = job.restore(to.to_str().unwrap(), &["--partial"]);
    let left = report["left_out"].as_array().unwrap();
    assert!(left.len() == 1 && left[0]["object"].as_str().unwrap().ends_with("/lines.jsonl"), "{left:?}");
    let mut expected = below(&job.scratch.join("input"));
    expected.remove("lines.jsonl");
    expect_same(&below(&to), &expected);
}

fn offset_of(document: &Document) -> String {
    format!("byte {}", document.get_i64("byte_offset").unwrap())
}

#[test]
fn a_missing_document_is_an_error_and_no_object() {
    let (job, victim) = finished();
    collection(&job).delete_one(doc! { "_id": victim.get("_id").unwrap() });
    refuses(&job, &[&offset_of(&victim), "in no stored document"]);
}

#[test]
fn a_document_with_changed_bytes_is_an_error_and_no_object() {
    let (job, victim) = finished();
    let mut data = victim.get_binary_generic("data").unwrap().clone();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    let data = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: data };
    collection(&job).update_one(doc! { "_id": victim.get("_id").unwrap() }, doc! { "$set": { "data": data } });
    refuses(&job, &[&offset_of(&victim), victim.get_str("_id").unwrap()]);
}

#[test]
fn a_document_which_was_tampered_with_consistently_is_an_error_and_no_object() {
    let (job, victim) = finished();
    let bytes = vec![b'#'; victim.get_i64("original_size").unwrap() as usize];
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    let packed = encoder.finish().unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(&bytes);
    let (size, crc) = (packed.len() as i64, i64::from(crc.sum()));
    let data = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: packed };
    let change = doc! { "$set": { "data": data, "compressed_size": size, "crc32": crc } };
    collection(&job).update_one(doc! { "_id": victim.get("_id").unwrap() }, change);
    refuses(&job, &["not those of receipt"]);
}

#[test]
fn a_document_of_another_place_or_version_is_an_error_and_no_object() {
    for change in
        [doc! { "$inc": { "byte_offset": 1_i64 } }, doc! { "$set": { "version": "another" } }, doc! { "$inc": { "original_size": 1_i64 } }]
    {
        let (job, victim) = finished();
        collection(&job).update_one(doc! { "_id": victim.get("_id").unwrap() }, change);
        refuses(&job, &[]);
    }
}

#[test]
fn damage_in_a_dump_is_an_error_and_no_object() {
    let job = Job::new();
    job.add_shapes(&corpus::texts());
    job.run();
    // The part of the first split of lines.jsonl.
    let manifest: Value = serde_json::from_slice(&fs::read(job.state_folder().join("manifest.json")).unwrap()).unwrap();
    let objects = manifest["objects"].as_array().unwrap();
    let object = objects.iter().find(|object| object["object"].as_str().unwrap().ends_with("/lines.jsonl")).unwrap();
    let split = object["splits"][1]["id"].as_str().unwrap();
    let part = job.scratch.join(&format!("dump/compressed_data/documents.{split}.bson"));
    let whole = fs::read(&part).unwrap();
    let mut changed = whole.clone();
    let at = changed.len() - 40;
    changed[at] ^= 1;
    fs::write(&part, &changed).unwrap();
    refuses(&job, &[]);
    fs::write(&part, &whole[..whole.len() - 10]).unwrap();
    refuses(&job, &["cut off"]);
    fs::remove_file(&part).unwrap();
    refuses(&job, &["does not exist"]);
}

#[test]
fn a_name_which_would_leave_the_target_folder_is_refused() {
    let job = Job::new();
    job.add_file("a.txt", b"one\n");
    job.run();
    let path = job.state_folder().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("/input/a.txt", "/input/../../a.txt")).unwrap();
    let to = job.scratch.join("deep/back");
    job.restore_call(to.to_str().unwrap(), &[]).run().expect_one_line(1, &["../a.txt", "target folder"]);
    assert!(!job.scratch.join("a.txt").exists() && !job.scratch.join("deep").exists());
}

#[test]
fn dead_letters_are_named_and_not_restored() {
    let mut job = Job::new();
    job.source_options.push(("blob.on_corrupt", "dead_letter"));
    let damaged = corpus::damaged();
    job.add_shapes(&damaged);
    job.add_file("whole.txt", b"whole\n");
    job.run();
    let to = job.scratch.join("back");
    let target = to.to_str().unwrap();
    let report = |finished: baler_tests::baler::Finished| serde_json::from_str::<Value>(&finished.stdout).unwrap();
    for (flags, code) in [(vec![], 1), (vec!["--partial"], 0)] {
        let report = report(job.restore_call(target, &flags).run().expect_code(code));
        let left = report["left_out"].as_array().unwrap();
        assert_eq!(left.len(), damaged.len());
        for shape in &damaged {
            let named = left.iter().find(|left| left["object"].as_str().unwrap().ends_with(&shape.name)).unwrap();
            assert!(!named["reason"].as_str().unwrap().is_empty());
        }
        expect_same(&below(&to), &Names::from([("whole.txt".to_string(), b"whole\n".to_vec())]));
    }
}

#[test]
fn jobs_which_are_not_done_or_not_by_object_are_refused() {
    let job = Job::new();
    job.add_file("a.txt", b"one\n");
    job.add_file("broken.gz", b"this is no gzip\n");
    job.call().run().expect_code(1);
    let to = job.scratch.join("back");
    let target = to.to_str().unwrap();
    job.restore_call(target, &[]).run().expect_one_line(1, &["load", "not committed", "--partial"]);
    let report = job.restore(target, &["--partial"]);
    let left = report["left_out"].as_array().unwrap();
    assert!(left.iter().any(|left| left["object"].as_str().unwrap().ends_with("/broken.gz")), "{left:?}");
    job.restore_call("ftp://host/x", &["--partial"]).run().expect_one_line(2, &["ftp"]);

    let mut job = Job::new();
    job.add_file("a.txt", b"one\n");
    let refused = |job: &mut Job<'_>, name: &str, query: &str, words: &[&str]| {
        let sql = job.sql();
        let (tables, _) = sql.split_once("INSERT").unwrap();
        let file = job.scratch.join(&format!("{name}.sql"));
        fs::write(&file, format!("{tables}INSERT INTO documents {query}")).unwrap();
        (job.file, job.name) = (Some(file), name.to_string());
        job.run();
        job.restore_call(target, &[]).run().expect_one_line(2, words);
        job.file = None;
    };
    refused(&mut job, "aggregated", "SELECT object AS _id, count(*) AS n FROM objects GROUP BY object", &["split by split"]);
    refused(&mut job, "filtered", "SELECT id AS _id, object, content AS data FROM objects WHERE records > 5", &["filters rows"]);
    refused(&mut job, "foreign", "SELECT id AS _id, content AS data FROM objects", &["sql/compress.sql"]);
    job.name = "unknown".to_string();
    job.restore_call(target, &[]).run().expect_one_line(2, &["no job `unknown`"]);
}
