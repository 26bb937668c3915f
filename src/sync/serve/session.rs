//! The supervisor's side of one session: its process, what that asks for, and how it ends.
#![allow(clippy::disallowed_methods, reason = "the supervisor starts its workers and measures deadlines")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Child;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;

use super::book::{ConnectionId, Refusal};
use super::control::{self, Answer, Moved, Order, Question, Report, cut};
use super::event::{Client, ServeEvent};
use super::metrics::Outcome;
use super::supervisor::{Ending, Shared, WorkerGuard};
use crate::fs::{NameService, SystemNames};
use crate::limits;
use crate::wire::SessionId;

/// Where further connections of a session go.
pub(super) type Handle = mpsc::Sender<TcpStream>;

/// Lines that one session may add to the log besides its first and last.
const NOTES_MAX: u32 = 20;

/// What a worker gets of the environment: where keys are.
const ENVIRONMENT: [&str; 2] = ["HOME", "XDG_CONFIG_HOME"];

/// A worker's process with its control channel.
struct Worker {
    child: Child,
    /// Only for waiting: its packets are not a stream.
    control: UnixStream,
}

impl Worker {
    fn start() -> io::Result<Worker> {
        let (ours, theirs) = control::pair()?;
        let ours = std::os::unix::net::UnixStream::from(ours);
        ours.set_nonblocking(true)?;
        // The program that runs, even where its file was replaced meanwhile: both ends speak the same version.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("xfer")
            .args(["serve", "--worker"])
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|&name| Some((name, std::env::var_os(name)?))))
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // A terminal's interrupt is meant for the supervisor, which drains.
            .process_group(0);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        Ok(Worker { child: command.spawn()?, control: UnixStream::from_std(ours)? })
    }

    async fn order(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sent = async {
            loop {
                self.control.writable().await?;
                let send = || control::send(&self.control, order, descriptors);
                match self.control.try_io(Interest::WRITABLE, send) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    sent => return sent,
                }
            }
        };
        // A worker that does not listen must not hold up its own end.
        tokio::time::timeout(limits::ms(limits::STOP_GRACE_MS), sent)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the process does not listen")))
    }

    /// The next report; `None` once it is gone. May be cancelled without loss.
    async fn report(&self) -> io::Result<Option<Report>> {
        loop {
            self.control.readable().await?;
            match self.control.try_io(Interest::READABLE, || control::receive::<Report>(&self.control)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                report => return Ok(report?.map(|(report, _)| report)),
            }
        }
    }
}

/// What is known of a session so far.
struct Course {
    id: SessionId,
    client: Option<Client>,
    module: Option<String>,
    moved: Moved,
    notes: u32,
    ended: Option<(String, Option<Refusal>, Option<String>)>,
}

/// Serves one connection by a process of its own, until both are gone.
pub(super) async fn run(
    shared: &Rc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    id: ConnectionId,
    gone: &Notify,
    deadline: Instant,
) {
    let began = Instant::now();
    let _counted = WorkerGuard::new(shared);
    let (session, mut worker) = match start(shared, stream, peer, deadline).await {
        Ok(started) => started,
        Err(error) => {
            let text = format!("cannot start a process: {error}");
            return shared.refused(peer, Refusal::Failure, Some(text));
        }
    };
    let mut course = Course { id: session, client: None, module: None, moved: Moved::default(), notes: 0, ended: None };
    let (lanes_in, mut lanes) = mpsc::channel(limits::SERVE_LANES_WAITING_MAX);
    let mut ending = shared.ending.subscribe();
    let mut stopped = false;
    // When it is killed if it still lives.
    let mut kill_at = Some((deadline, Refusal::Deadline));
    let why = loop {
        let kill = async {
            match kill_at {
                Some((at, why)) => {
                    tokio::time::sleep_until(at.into()).await;
                    why
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order: a worker that reports without pause must not hold up its own end.
            biased;
            () = gone.notified() => break Some(Refusal::Displaced),
            why = kill => break Some(why),
            () = stopping(&mut ending), if !stopped => {
                stopped = true;
                let _ = worker.order(&Order::Stop, &[]).await;
                kill_at = Some((grace(), Refusal::Draining));
            }
            report = worker.report() => match report {
                Ok(Some(report)) => {
                    let step = step(shared, &worker, id, peer, &mut course, &lanes_in, report).await;
                    match step {
                        Ok(Next::Go) => {}
                        Ok(Next::Authenticated) => kill_at = None,
                        Ok(Next::Ended) => kill_at = Some((grace(), Refusal::Failure)),
                        Err(_) => break Some(Refusal::Failure),
                    }
                }
                Ok(None) => break None,
                Err(_) => break Some(Refusal::Failure),
            },
            Some(lane) = lanes.recv() => {
                // What cannot be handed over is closed; a worker that is gone is seen above.
                if let Ok(lane) = blocking(lane) {
                    let _ = worker.order(&Order::Lane, &[lane.as_fd()]).await;
                }
            }
        }
    };
    shared.part(session);
    let died = finish(&mut worker.child, why.is_some()).await;
    tell(shared, peer, course, why, died, began.elapsed());
}

/// Comes back when sessions are to end. What it looks at must not stay locked.
async fn stopping(ending: &mut watch::Receiver<Ending>) {
    let gone = ending.wait_for(|ending| *ending == Ending::Stopping).await.is_err();
    if gone {
        std::future::pending().await
    }
}

fn grace() -> Instant {
    Instant::now() + limits::ms(limits::STOP_GRACE_MS)
}

/// A worker reads and writes without a runtime.
fn blocking(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

async fn start(
    shared: &Shared,
    stream: TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> io::Result<(SessionId, Worker)> {
    let mut session = [0; 16];
    getrandom::fill(&mut session).map_err(io::Error::other)?;
    let session = SessionId(session);
    let worker = Worker::start()?;
    let stream = blocking(stream)?;
    let served = Rc::clone(&shared.served.borrow());
    let deadline_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
    let order = Order::Start { session, peer, deadline_ms };
    worker.order(&order, &[stream.as_fd(), served.sealed().as_fd()]).await?;
    Ok((session, worker))
}

enum Next {
    Go,
    Authenticated,
    Ended,
}

/// One report of a worker. An error is a worker that makes no sense, and ends it.
async fn step(
    shared: &Rc<Shared>,
    worker: &Worker,
    id: ConnectionId,
    peer: SocketAddr,
    course: &mut Course,
    lanes: &Handle,
    report: Report,
) -> io::Result<Next> {
    match report {
        // Only the first counts: a session has one client, and its deadlines run on.
        Report::Authenticated { .. } if course.client.is_some() => {
            answer(worker, Err(Refusal::Forbidden)).await.map(|_| Next::Go)
        }
        Report::Authenticated { key, fingerprint, comment } => {
            let granted = if shared.is_ending() {
                Err(Refusal::Draining)
            } else {
                shared.book.borrow_mut().authenticate(id, &key)
            };
            if granted.is_ok() {
                shared.made_room();
                course.client = Some(Client { session: id.0, peer, fingerprint, comment });
            }
            answer(worker, granted).await.map(|granted| if granted { Next::Authenticated } else { Next::Go })
        }
        Report::Enter { module, role, paths } => {
            let sessions_max = shared.served.borrow().sessions_max(&module);
            let granted = match sessions_max {
                Some(most) => shared.book.borrow_mut().enter(id, &module, most),
                None => Err(Refusal::Forbidden),
            };
            if let (Ok(()), Some(client)) = (granted, &course.client) {
                shared.join(course.id, lanes.clone());
                course.module = Some(module.clone());
                shared.event(&ServeEvent::Began { client: client.clone(), module, role, paths });
            }
            answer(worker, granted).await.map(|_| Next::Go)
        }
        // Nobody needs names before that, and the answer may take longer than the time to say who it is.
        Report::Lookup { .. } if course.module.is_none() => {
            Err(io::Error::other("asks for names outside of a session"))
        }
        Report::Lookup { question } => {
            let answer = look_up(question).await;
            worker.order(&Order::Found { answer }, &[]).await.map(|()| Next::Go)
        }
        Report::Progress { moved } => {
            shared.metrics.moved(&course.moved, &moved);
            course.moved = moved;
            Ok(Next::Go)
        }
        Report::Note { text } => {
            course.notes += 1;
            if course.notes <= NOTES_MAX {
                shared.event(&ServeEvent::Note { peer, text });
            }
            Ok(Next::Go)
        }
        Report::Ended { outcome, why, failure, moved } => {
            shared.metrics.moved(&course.moved, &moved);
            course.moved = moved;
            course.ended = Some((outcome, why, failure));
            Ok(Next::Ended)
        }
    }
}

async fn answer(worker: &Worker, granted: Result<(), Refusal>) -> io::Result<bool> {
    let order = match granted {
        Ok(()) => Order::Granted,
        Err(why) => Order::Refused { why },
    };
    worker.order(&order, &[]).await?;
    Ok(granted.is_ok())
}

/// Asks the system, which may ask a network, on a thread that may wait. Nothing is remembered here: a worker remembers
/// for itself.
async fn look_up(question: Question) -> Answer {
    let ask = move || {
        let id = |found: io::Result<Option<u32>>| found.map_or(Answer::Failed, Answer::Id);
        let name = |found: io::Result<Option<Vec<u8>>>| found.map_or(Answer::Failed, Answer::Name);
        match question {
            Question::UserName(uid) => name(SystemNames.user_name(uid)),
            Question::GroupName(gid) => name(SystemNames.group_name(gid)),
            Question::UserId(user) => id(SystemNames.user_id(&user)),
            Question::GroupId(group) => id(SystemNames.group_id(&group)),
        }
    };
    let limit = limits::ms(limits::CONTROL_ANSWER_TIMEOUT_MS / 2);
    match tokio::time::timeout(limit, spawn_blocking(ask)).await {
        Ok(Ok(answer)) => answer,
        _ => Answer::Failed,
    }
}

/// Waits for the process; kills it at once with `kill`, or when it does not end by itself. How it died, if it did.
async fn finish(child: &mut Child, kill: bool) -> Option<String> {
    if kill {
        let _ = child.start_kill();
    }
    let status = match tokio::time::timeout(limits::ms(limits::STOP_GRACE_MS), child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            let _ = child.start_kill();
            child.wait().await
        }
    };
    match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// The last line of a session or a connection, and its place in the metrics.
fn tell(
    shared: &Rc<Shared>,
    peer: SocketAddr,
    course: Course,
    why: Option<Refusal>,
    died: Option<String>,
    elapsed: Duration,
) {
    let Some(client) = course.client else {
        // The one that displaced it, or its deadline, counts before what its death looks like.
        let (why, detail) = match (why, course.ended) {
            (Some(why), _) => (why, None),
            (None, Some((_, why, failure))) => (why.unwrap_or(Refusal::Failure), failure),
            (None, None) => (Refusal::Failure, died),
        };
        return shared.refused(peer, why, detail);
    };
    let (outcome, refused, failure) = course.ended.unwrap_or_else(|| {
        if why == Some(Refusal::Draining) {
            return ("interrupted".to_owned(), None, Some("it did not end in time and was killed".to_owned()));
        }
        let text = died.unwrap_or_else(|| "its process broke the rules between processes".to_owned());
        ("died".to_owned(), None, Some(text))
    });
    if let Some(refused) = refused.filter(|_| outcome == "refused") {
        shared.metrics.refused(refused);
    }
    let counted = if outcome == "died" { Outcome::Died } else { Outcome::of(&outcome) };
    shared.metrics.ended(counted);
    let outcome = match refused {
        Some(why) if outcome == "refused" => format!("refused: {}", why.text()),
        _ => cut(&outcome, limits::MODULE_NAME_BYTES_MAX),
    };
    shared.event(&ServeEvent::Ended {
        client,
        module: course.module,
        outcome,
        failure,
        moved: course.moved.into(),
        elapsed_ms: elapsed.as_millis() as u64,
    });
}
