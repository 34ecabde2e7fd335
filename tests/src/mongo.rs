//! A server which speaks MongoDB's wire protocol: SecantusDB, or another one named by `BALER_TEST_MONGOD`.

use std::env;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bson::{Document, RawDocumentBuf, doc};
use futures::{StreamExt, TryStreamExt};
use mongodb::error::ErrorKind;
use mongodb::options::{Acknowledgment, IndexOptions, WriteConcern};
use mongodb::{Client, IndexModel};

use crate::servers::{Server, free_port, random, random_name, run_folder, say};
use crate::{block_on, cache, wait_until};

const VERSION: &str = "0.7.0b3";

/// Which server the tests use.
pub fn description() -> String {
    match env::var("BALER_TEST_MONGOD") {
        Ok(path) => format!("the binary {path} (BALER_TEST_MONGOD), with SecantusDB's flags"),
        Err(_) => format!("SecantusDB {VERSION} from PyPI, in a virtual environment of its own, with --sync-on-commit"),
    }
}

fn binary() -> PathBuf {
    if let Some(path) = env::var_os("BALER_TEST_MONGOD") {
        return path.into();
    }
    let place = cache::tool(&format!("secantusdb-{VERSION}"), "python3 -m venv and pip", |place| {
        cache::step(Command::new("python3").args(["-m", "venv"]).arg(place), "Python 3.10 or newer with `venv` (`python3`)");
        let package = format!("SecantusDB=={VERSION}");
        cache::step(Command::new(place.join("bin/pip")).args(["install", "--quiet", "--prefer-binary", &package]), "pip");
    });
    place.join("bin/secantusd-py")
}

/// User and password of a server with authentication.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password, which must never appear in any output.
    pub password: String,
}

/// One server with its port and data folder, which stay the same over stops and starts.
#[derive(Debug)]
pub struct Mongo {
    /// The port on the loopback address.
    pub port: u16,
    /// Set, when the server wants a login.
    pub login: Option<Login>,
    folder: PathBuf,
    name: String,
    server: Mutex<Option<Server>>,
    /// The one client of the server since its last start: each has connections of its own, and the server takes 1,000 of them.
    client: Mutex<Option<Client>>,
}

impl Mongo {
    /// The server of this run which all tests share that neither stop it nor log in.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Mongo> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    /// The server of this run which wants a login.
    pub fn with_login() -> &'static Self {
        static SERVER: OnceLock<Mongo> = OnceLock::new();
        SERVER.get_or_init(|| {
            let mut mongo = Self::start();
            let login = Login { user: "loader".to_string(), password: format!("p{:016x}", random()) };
            // The first user is made while the server still lets everyone in.
            let create = doc! { "createUser": &login.user, "pwd": &login.password, "roles": ["root"] };
            block_on(mongo.client().database("admin").run_command(create)).expect("cannot create a user");
            mongo.stop();
            mongo.login = Some(login);
            mongo.restart();
            mongo
        })
    }

    /// Starts a server of a test's own, which it may stop, and kill after [`Collection::settle`].
    pub fn start() -> Self {
        let name = random_name("mongo");
        let folder = run_folder().join(&name);
        let mongo = Self { port: free_port(), login: None, folder, name, server: Mutex::default(), client: Mutex::default() };
        mongo.restart();
        let answer = block_on(mongo.client().database("admin").run_command(doc! { "buildInfo": 1 })).expect("the server answers");
        let version = answer.get_str("version").unwrap_or("unknown");
        say(&format!("MongoDB wire server listens on 127.0.0.1:{} and says version {version}", mongo.port));
        mongo
    }

    /// Starts it again on the same port and folder.
    ///
    /// # Panics
    /// When it runs already or does not come up.
    pub fn restart(&self) {
        let mut slot = self.slot();
        assert!(slot.is_none(), "the server runs already");
        let mut command = Command::new(binary());
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string(), "--sync-on-commit", "--storage-path"]).arg(&self.folder);
        if self.login.is_some() {
            command.arg("--auth");
        }
        let mut server = Server::start(&self.name, &mut command);
        server.wait_ready(|| TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
        *slot = Some(server);
        drop(slot);
        *lock(&self.client) = None;
        wait_until("the database answers", || block_on(self.client().database("admin").run_command(doc! { "hello": 1 })).is_ok());
    }

    /// Ends it with SIGTERM.
    pub fn stop(&self) {
        self.slot().take().expect("the server runs").stop();
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.slot().take().expect("the server runs").kill();
    }

    fn slot(&self) -> MutexGuard<'_, Option<Server>> {
        lock(&self.server)
    }

    /// The client of the tests, straight to the server.
    pub fn client(&self) -> Client {
        lock(&self.client).get_or_insert_with(|| self.connect()).clone()
    }

    fn connect(&self) -> Client {
        let login = self.login.as_ref().map(|login| format!("{}:{}@", login.user, login.password)).unwrap_or_default();
        let url = format!("mongodb://{login}127.0.0.1:{}/?directConnection=true&serverSelectionTimeoutMS=20000", self.port);
        block_on(Client::with_uri_str(url)).expect("a valid URL")
    }

    /// A collection with a random database name, reached straight.
    pub fn collection(&self) -> Collection<'_> {
        self.collection_at(self.port)
    }

    /// A collection with a random database name, which `baler` reaches through a proxy's port.
    ///
    /// `directConnection` keeps the driver on that port: the server's hello names its own.
    pub fn collection_at(&self, port: u16) -> Collection<'_> {
        let database = random_name("db");
        let url = format!("mongodb://127.0.0.1:{port}/{database}.documents?directConnection=true");
        Collection { mongo: self, database, url }
    }
}

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The collection `documents` in a database of one test.
#[derive(Debug)]
pub struct Collection<'a> {
    mongo: &'a Mongo,
    /// The random database.
    pub database: String,
    /// What a table's LOCATION says.
    pub url: String,
}

impl Collection<'_> {
    fn handle(&self) -> mongodb::Collection<Document> {
        self.mongo.client().database(&self.database).collection("documents")
    }

    /// Makes a kill of the server safe for this collection, which is still empty. SecantusDB makes a table when it is first written to,
    /// and does not start again after a kill until that table was part of a clean stop.
    pub fn settle(&self) {
        self.insert(doc! { "_id": "settle" });
        self.delete_one(doc! { "_id": "settle" });
        self.mongo.stop();
        self.mongo.restart();
    }

    /// All documents.
    pub fn read(&self) -> Vec<Document> {
        let handle = self.handle();
        block_on(async { handle.find(doc! {}).await?.try_collect().await }).expect("cannot read a collection")
    }

    /// How many documents there are now.
    pub fn count(&self) -> u64 {
        block_on(self.handle().count_documents(doc! {})).expect("cannot count a collection")
    }

    /// Puts many documents there behind Baler's back.
    pub fn insert_all(&self, documents: &[Document]) {
        block_on(self.handle().insert_many(documents)).expect("cannot insert documents");
    }

    /// Sends batches by a bare loop of `insert_many`, some at once, acknowledged by a majority and its journal: for benchmarks.
    ///
    /// # Panics
    /// When the server refuses one.
    pub fn insert_batches(&self, batches: &[Vec<RawDocumentBuf>], at_once: usize) {
        let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let handle = self.handle().clone_with_type::<RawDocumentBuf>();
        let (handle, concern) = (&handle, &concern);
        let inserts =
            batches.iter().map(|batch| async move { handle.insert_many(batch).ordered(false).write_concern(concern.clone()).await });
        block_on(futures::stream::iter(inserts).buffer_unordered(at_once).try_collect::<Vec<_>>()).expect("cannot insert documents");
    }

    /// Makes an index on a field.
    pub fn index(&self, field: &str) {
        self.make_index(&IndexModel::builder().keys(doc! { field: 1 }).build());
    }

    /// The driver tries reads and writes again whose connection breaks, and this not.
    fn make_index(&self, index: &IndexModel) {
        let handle = self.handle();
        let mut made = Ok(());
        for _ in 0..3 {
            made = block_on(async { handle.create_index(index.clone()).await }).map(drop);
            if !made.as_ref().is_err_and(|error| matches!(*error.kind, ErrorKind::Io(_))) {
                break;
            }
        }
        made.expect("cannot make an index");
    }

    /// Puts a document there behind Baler's back.
    pub fn insert(&self, document: Document) {
        block_on(self.handle().insert_one(document)).expect("cannot insert a document");
    }

    /// Lets no two documents have the same value of `field` from now on.
    pub fn require_distinct(&self, field: &str) {
        let options = IndexOptions::builder().unique(true).name("distinct".to_string()).build();
        let index = IndexModel::builder().keys(doc! { field: 1 }).options(options).build();
        self.make_index(&index);
    }

    /// Takes that rule back.
    pub fn allow_equal(&self) {
        let handle = self.handle();
        block_on(async { handle.drop_index("distinct").await }).expect("cannot drop an index");
    }

    /// Removes one document behind Baler's back.
    pub fn delete_one(&self, filter: Document) {
        assert_eq!(block_on(self.handle().delete_one(filter)).expect("cannot delete").deleted_count, 1);
    }

    /// Changes one document behind Baler's back.
    pub fn update_one(&self, filter: Document, update: Document) {
        assert_eq!(block_on(self.handle().update_one(filter, update)).expect("cannot update").modified_count, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{Fault, Protocol, Proxy};
    use crate::servers::Scratch;

    fn insert(url: &str, login: &str, document: Document) -> Result<(), String> {
        let url = url.replacen("mongodb://", &format!("mongodb://{login}"), 1);
        let (server, rest) = url.rsplit_once('/').unwrap();
        let (namespace, options) = rest.split_once('?').unwrap();
        let (database, collection) = namespace.split_once('.').unwrap();
        let url = format!("{server}/?{options}&serverSelectionTimeoutMS=20000&retryWrites=false");
        let client = block_on(Client::with_uri_str(url)).unwrap();
        block_on(client.database(database).collection(collection).insert_one(document)).map(|_| ()).map_err(|e| e.to_string())
    }

    #[test]
    fn documents_survive_a_kill_and_a_restart() {
        let _scratch = Scratch::new();
        let mongo = Mongo::start();
        let collection = mongo.collection();
        collection.settle();
        collection.insert(doc! { "_id": 1 });
        mongo.kill();
        mongo.restart();
        assert_eq!(collection.count(), 1);
        mongo.stop();
        mongo.restart();
        assert_eq!(collection.read(), [doc! { "_id": 1 }]);
    }

    #[test]
    fn only_the_right_password_gets_in() {
        let _scratch = Scratch::new();
        let mongo = Mongo::with_login();
        let login = mongo.login.as_ref().unwrap();
        let collection = mongo.collection();
        insert(&collection.url, &format!("{}:{}@", login.user, login.password), doc! {}).unwrap();
        insert(&collection.url, &format!("{}:wrong@", login.user), doc! {}).unwrap_err();
        insert(&collection.url, "", doc! {}).unwrap_err();
    }

    #[test]
    fn a_swallowed_reply_leaves_the_write_done_and_a_cut_write_leaves_it_undone() {
        let _scratch = Scratch::new();
        let mongo = Mongo::shared();
        let proxy = Proxy::start(mongo.port, Protocol::Mongo);
        let collection = mongo.collection_at(proxy.port);
        insert(&collection.url, "", doc! { "_id": 1 }).unwrap();
        proxy.arm(Fault::LoseReplies { writes: 1, times: 1 });
        insert(&collection.url, "", doc! { "_id": 2 }).unwrap();
        insert(&collection.url, "", doc! { "_id": 3 }).unwrap_err();
        assert_eq!((proxy.fired(), collection.count()), (1, 3), "the write arrived, its reply did not");
        proxy.arm(Fault::CutWrites { writes: 0, times: 1 });
        insert(&collection.url, "", doc! { "_id": 4 }).unwrap_err();
        assert_eq!((proxy.fired(), collection.count()), (2, 3), "the write did not arrive");
        insert(&collection.url, "", doc! { "_id": 5 }).unwrap();
        assert_eq!(proxy.writes(), 5);
    }
}
