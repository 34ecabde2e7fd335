//! A TCP proxy between `baler` and a server, which breaks connections on demand and counts what it broke.
//!
//! In front of a MongoDB server it reads the frames of the wire protocol: it can let a write reach the server, wait for the
//! server's reply, and close the connection in place of handing the reply on. That is the cut between write and
//! acknowledgement. In front of anything else it counts bytes.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use crate::corpus::Random;

/// How the bytes are cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// As they come.
    Bytes,
    /// MongoDB's frames: length, request id, id of the request which is answered, operation.
    Mongo,
}

/// What goes wrong. One fault at a time is armed; it stays until [`Proxy::arm`] sets the next one or it has no more firings left.
pub enum Fault {
    /// Nothing.
    None,
    /// After `writes` further writes whose replies pass, the replies of the next `times` writes are swallowed: the server has written, the
    /// client sees a closed connection. MongoDB only.
    LoseReplies {
        /// Writes which still pass.
        writes: usize,
        /// Replies to swallow.
        times: usize,
    },
    /// After `writes` further writes, the next write is cut in its middle: the server never sees the whole of it. MongoDB only.
    CutWrites {
        /// Writes which still pass.
        writes: usize,
        /// Writes to cut.
        times: usize,
    },
    /// After `bytes` further bytes from the server, the connection which carries the next is closed.
    CutReplies {
        /// Bytes which still pass.
        bytes: usize,
        /// Connections to cut.
        times: usize,
    },
    /// After `writes` further writes (MongoDB) or requests nothing passes any more until another fault is armed.
    Stall {
        /// Writes which still pass.
        writes: usize,
    },
    /// After `bytes` further bytes from the server nothing passes any more until another fault is armed.
    StallReplies {
        /// Bytes which still pass.
        bytes: usize,
    },
    /// New connections are closed at once, and so are the present ones.
    Refuse,
    /// Every message waits on its way, each for another time up to this one, so that those of several connections overtake each other.
    Late(Duration),
    /// The next `times` requests for objects are answered with 503, as S3 does when it is asked for too much at once.
    Busy {
        /// Requests to refuse.
        times: usize,
    },
    /// Runs `action` once before the first request which starts with `start` is handed on.
    Before {
        /// How the request starts, as in `GET /bucket/key`.
        start: String,
        /// What happens behind the client's back.
        action: Option<Box<dyn FnOnce() + Send>>,
    },
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::LoseReplies { .. } => "LoseReplies",
            Self::CutWrites { .. } => "CutWrites",
            Self::CutReplies { .. } => "CutReplies",
            Self::Stall { .. } => "Stall",
            Self::StallReplies { .. } => "StallReplies",
            Self::Refuse => "Refuse",
            Self::Late(_) => "Late",
            Self::Busy { .. } => "Busy",
            Self::Before { .. } => "Before",
        })
    }
}

#[derive(Debug)]
struct State {
    fault: Fault,
    fired: usize,
    writes: usize,
    stalled: bool,
    /// The newest late message that was handed on, by the number of its firing.
    newest: usize,
    overtaken: usize,
    open: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    upstream: u16,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running proxy. Its threads end with the test process.
#[derive(Debug)]
pub struct Proxy {
    /// The port on the loopback address at which it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

/// What the fault says about one message of the client.
enum Verdict {
    Pass,
    SwallowReply,
    CutInTheMiddle,
}

impl Proxy {
    /// Listens on a free port and hands everything on to `upstream` on the loopback address.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(upstream: u16, protocol: Protocol) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("cannot listen");
        let port = listener.local_addr().expect("a local address").port();
        let state = State { fault: Fault::None, fired: 0, writes: 0, stalled: false, newest: 0, overtaken: 0, open: Vec::new() };
        let shared = Arc::new(Shared { protocol, upstream, state: Mutex::new(state), changed: Condvar::new() });
        let served = Arc::clone(&shared);
        thread("proxy-accept", move || {
            for client in listener.incoming().flatten() {
                serve(&served, client).ok();
            }
        });
        Self { port, shared }
    }

    /// Sets the next fault and wakes what the last one stalled. The counter of [`Proxy::fired`] goes on.
    pub fn arm(&self, fault: Fault) {
        let mut state = self.shared.lock();
        if matches!(fault, Fault::Refuse) {
            state.fired += 1;
            state.close_all();
        }
        state.stalled = false;
        state.fault = fault;
        self.shared.changed.notify_all();
    }

    /// Closes all present connections.
    pub fn cut(&self) {
        self.shared.lock().close_all();
    }

    /// How often a fault fired.
    pub fn fired(&self) -> usize {
        self.shared.lock().fired
    }

    /// How many late messages were handed on after one that had come later.
    pub fn overtaken(&self) -> usize {
        self.shared.lock().overtaken
    }

    /// How many writes (inserts, updates, deletes) clients sent.
    pub fn writes(&self) -> usize {
        self.shared.lock().writes
    }
}

impl State {
    fn close_all(&mut self) {
        for stream in self.open.drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Decides about one message of a client. Whoever asks holds the lock, so that each firing is counted once.
    fn judge(&mut self, is_write: bool) -> Verdict {
        self.writes += usize::from(is_write);
        match &mut self.fault {
            Fault::LoseReplies { writes, times } | Fault::CutWrites { writes, times } if is_write => {
                if *writes > 0 {
                    *writes -= 1;
                    return Verdict::Pass;
                }
                if *times == 0 {
                    return Verdict::Pass;
                }
                *times -= 1;
                if matches!(self.fault, Fault::LoseReplies { .. }) {
                    return Verdict::SwallowReply;
                }
                self.fired += 1;
                Verdict::CutInTheMiddle
            }
            Fault::Stall { writes } if is_write => {
                if *writes > 0 {
                    *writes -= 1;
                } else if !self.stalled {
                    self.stalled = true;
                    self.fired += 1;
                }
                Verdict::Pass
            }
            _ => Verdict::Pass,
        }
    }
}

impl State {
    /// Counts what a server sends, and stalls when that is enough.
    fn judge_reply(&mut self, length: usize) {
        let Fault::StallReplies { bytes } = &mut self.fault else { return };
        if *bytes >= length {
            *bytes -= length;
        } else if !self.stalled {
            self.stalled = true;
            self.fired += 1;
        }
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) {
    Builder::new().name(name.to_string()).spawn(work).expect("cannot start a thread");
}

fn serve(shared: &Arc<Shared>, client: TcpStream) -> Result<()> {
    if matches!(shared.lock().fault, Fault::Refuse) {
        shared.lock().fired += 1;
        return client.shutdown(Shutdown::Both);
    }
    // A server which is down: the client sees its connection closed.
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream))?;
    let pair = Pair { shared: Arc::clone(shared), swallow: Arc::default(), client: client.try_clone()?, server: server.try_clone()? };
    shared.lock().open.extend([client.try_clone()?, server.try_clone()?]);
    let (up, down) = (pair.try_clone()?, pair);
    thread("proxy-up", move || up.end(up.pump_requests(client)));
    thread("proxy-down", move || down.end(down.pump_replies(server)));
    Ok(())
}

/// One connection of a client and the one to the server which belongs to it.
struct Pair {
    shared: Arc<Shared>,
    /// Ids of requests whose replies the client must not see.
    swallow: Arc<Mutex<BTreeSet<u32>>>,
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            shared: Arc::clone(&self.shared),
            swallow: Arc::clone(&self.swallow),
            client: self.client.try_clone()?,
            server: self.server.try_clone()?,
        })
    }

    /// One side has ended: so does the other.
    fn end(&self, _: Result<()>) {
        self.client.shutdown(Shutdown::Both).ok();
        self.server.shutdown(Shutdown::Both).ok();
    }

    fn pump_requests(&self, mut from: TcpStream) -> Result<()> {
        while let Some(message) = read_message(&mut from, self.shared.protocol)? {
            self.act_before(&message);
            if self.is_refused(&message)? {
                continue;
            }
            let is_write = match self.shared.protocol {
                Protocol::Mongo => is_mongo_write(&message),
                Protocol::Bytes => starts_request(&message),
            };
            let verdict = self.shared.lock().judge(is_write);
            self.wait_while_stalled();
            match verdict {
                Verdict::Pass => (&self.server).write_all(&message)?,
                Verdict::SwallowReply => {
                    self.swallow.lock().unwrap_or_else(PoisonError::into_inner).insert(number(&message, 4));
                    (&self.server).write_all(&message)?;
                }
                Verdict::CutInTheMiddle => {
                    (&self.server).write_all(&message[..message.len() / 2])?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn pump_replies(&self, mut from: TcpStream) -> Result<()> {
        while let Some(message) = read_message(&mut from, self.shared.protocol)? {
            self.shared.lock().judge_reply(message.len());
            self.wait_while_stalled();
            if self.shared.protocol == Protocol::Mongo {
                let answers = number(&message, 8);
                if self.swallow.lock().unwrap_or_else(PoisonError::into_inner).remove(&answers) {
                    self.shared.lock().fired += 1;
                    return Ok(());
                }
            }
            if self.cuts_reply(message.len()) {
                return Ok(());
            }
            (&self.client).write_all(&message)?;
        }
        Ok(())
    }

    fn cuts_reply(&self, length: usize) -> bool {
        let mut state = self.shared.lock();
        let Fault::CutReplies { bytes, times } = &mut state.fault else { return false };
        if *times == 0 || *bytes >= length {
            *bytes = bytes.saturating_sub(length);
            return false;
        }
        *times -= 1;
        state.fired += 1;
        true
    }

    /// Answers a request in the server's place, if it is to be refused.
    fn is_refused(&self, message: &[u8]) -> Result<bool> {
        let mut state = self.shared.lock();
        let Fault::Busy { times } = &mut state.fault else { return Ok(false) };
        if *times == 0 || !message.starts_with(b"GET ") {
            return Ok(false);
        }
        *times -= 1;
        state.fired += 1;
        drop(state);
        (&self.client).write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")?;
        Ok(true)
    }

    fn act_before(&self, message: &[u8]) {
        let mut state = self.shared.lock();
        let Fault::Before { start, action } = &mut state.fault else { return };
        if message.starts_with(start.as_bytes())
            && let Some(action) = action.take()
        {
            // Under the lock: no other connection overtakes the action.
            action();
            state.fired += 1;
        }
    }

    fn wait_while_stalled(&self) {
        let mut state = self.shared.lock();
        if let Fault::Late(pause) = state.fault {
            state.fired += 1;
            let number = state.fired;
            drop(state);
            std::thread::sleep(pause.mul_f64(Random::new(number as u64).below(1000) as f64 / 1e3));
            let mut state = self.shared.lock();
            state.overtaken += usize::from(number < state.newest);
            state.newest = state.newest.max(number);
            return;
        }
        while state.stalled {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Reads what is handed on at once; `None` at the end of the stream.
fn read_message(from: &mut TcpStream, protocol: Protocol) -> Result<Option<Vec<u8>>> {
    if protocol == Protocol::Bytes {
        let mut buffer = vec![0; 16 << 10];
        let length = from.read(&mut buffer)?;
        buffer.truncate(length);
        return Ok((length > 0).then_some(buffer));
    }
    let mut message = vec![0; 16];
    match from.read_exact(&mut message) {
        Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    message.resize(number(&message, 0) as usize, 0);
    from.read_exact(&mut message[16..])?;
    Ok(Some(message))
}

fn number(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
}

/// Whether a frame is a command which writes. The command's name is the first field of the body: after the header (16), the flags (4),
/// the kind of section (1), the length of the document (4) and the type of the field (1).
fn is_mongo_write(message: &[u8]) -> bool {
    const OP_MSG: u32 = 2013;
    let Some(name) = message.get(26..) else { return false };
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    number(message, 12) == OP_MSG && matches!(name, b"insert" | b"update" | b"delete" | b"findAndModify" | b"bulkWrite")
}

/// Whether these bytes begin an HTTP request.
fn starts_request(message: &[u8]) -> bool {
    ["GET ", "PUT ", "POST ", "HEAD ", "DELETE "].iter().any(|method| message.starts_with(method.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server which answers every byte with itself plus one.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread("echo", move || {
            for mut stream in listener.incoming().flatten() {
                thread("echo-one", move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        stream.write_all(&[byte[0] + 1]).ok();
                    }
                });
            }
        });
        port
    }

    fn ask(stream: &mut TcpStream) -> bool {
        let mut byte = [7];
        stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok() && byte[0] == 8
    }

    #[test]
    fn replies_pass_until_the_fault_cuts_and_is_counted() {
        let proxy = Proxy::start(echo(), Protocol::Bytes);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        assert!(ask(&mut stream) && ask(&mut stream));
        proxy.arm(Fault::CutReplies { bytes: 1, times: 1 });
        assert!(ask(&mut stream));
        assert!(!ask(&mut stream));
        assert_eq!(proxy.fired(), 1);
        assert!(ask(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap()), "one cut only");
    }

    #[test]
    fn refusing_closes_old_and_new_connections() {
        let proxy = Proxy::start(echo(), Protocol::Bytes);
        let mut old = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        assert!(ask(&mut old));
        proxy.arm(Fault::Refuse);
        assert!(!ask(&mut old));
        assert!(!ask(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap()));
        assert_eq!(proxy.fired(), 2);
    }

    #[test]
    fn late_messages_of_several_connections_overtake_each_other() {
        let proxy = Proxy::start(echo(), Protocol::Bytes);
        proxy.arm(Fault::Late(Duration::from_millis(20)));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
                    (0..10).for_each(|_| assert!(ask(&mut stream)));
                });
            }
        });
        // A request and a reply each, at least.
        assert!(proxy.fired() >= 80 && proxy.overtaken() > 0, "{} late, {} overtaken", proxy.fired(), proxy.overtaken());
    }

    #[test]
    fn the_name_of_a_write_command_is_found_in_its_frame() {
        let mut frame = vec![0; 16];
        frame[12..14].copy_from_slice(&2013_u16.to_le_bytes());
        frame.extend([0; 4 + 1 + 4]);
        frame.extend(b"\x02insert\0");
        assert!(is_mongo_write(&frame));
        frame[26] = b'f';
        assert!(!is_mongo_write(&frame));
    }
}
