//! A worker's end of the control channel: questions before it has threads, and a thread that listens afterwards.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::book::Refusal;
use super::control::{self, Answer, Order, Question, Report};
use super::worker::{Counted, progress_interval};
use crate::fs::NameService;
use crate::limits;
use crate::sync::StopFlag;
use crate::sync::remote::LaneSource;
use crate::wire::SessionId;

/// The channel. Packets of several threads do not mix: each is one system call.
pub(super) struct Channel {
    control: OwnedFd,
    session: SessionId,
    lanes: (Sender<TcpStream>, Receiver<TcpStream>),
    answers: (Sender<Answer>, Receiver<Answer>),
    /// Held while a question waits for its answer: they come in the order of the questions.
    asking: Mutex<()>,
}

impl Channel {
    pub(super) fn new(control: OwnedFd, session: SessionId) -> Channel {
        Channel {
            control,
            session,
            lanes: bounded(limits::SERVE_LANES_WAITING_MAX),
            answers: bounded(1),
            asking: Mutex::new(()),
        }
    }

    /// Tells the supervisor.
    pub(super) fn report(&self, report: &Report) -> io::Result<()> {
        control::send(&self.control, report, &[])
    }

    /// For the log.
    pub(super) fn note(&self, text: &str) {
        let _ = self.report(&Report::Note { text: control::cut(text, limits::LOG_LINE_BYTES_MAX / 2) });
    }

    /// Asks for leave, before there are threads. A supervisor that does not answer refuses.
    pub(super) fn ask(&self, report: &Report) -> Result<(), Refusal> {
        self.report(report).map_err(|_| Refusal::Failure)?;
        if !self.readable(limits::CONTROL_ANSWER_TIMEOUT_MS).unwrap_or(false) {
            return Err(Refusal::Failure);
        }
        match control::receive::<Order>(&self.control) {
            Ok(Some((Order::Granted, _))) => Ok(()),
            Ok(Some((Order::Refused { why }, _))) => Err(why),
            Ok(Some((Order::Stop, _))) => Err(Refusal::Draining),
            _ => Err(Refusal::Failure),
        }
    }

    fn readable(&self, timeout_ms: u64) -> io::Result<bool> {
        let timeout = Timespec { tv_sec: (timeout_ms / 1000) as i64, tv_nsec: (timeout_ms % 1000) as i64 * 1_000_000 };
        match poll(&mut [PollFd::new(&self.control, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Lanes as they come.
    pub(super) fn lanes(self: &Arc<Self>) -> Lanes {
        Lanes(Arc::clone(self))
    }

    /// Listens from now on, on a thread of its own, and answers for the names of users and groups. Where the
    /// supervisor dies, the session ends: nobody would know of it any more.
    pub(super) fn start(self: &Arc<Self>, stop: StopFlag, counted: Counted) -> io::Result<()> {
        crate::fs::set_name_service(Box::new(NamesFromOutside(Arc::clone(self))));
        let channel = Arc::clone(self);
        let listen = move || channel.listen(&stop, &counted);
        std::thread::Builder::new().name("control".to_owned()).spawn(listen).map(drop)
    }

    fn listen(&self, stop: &StopFlag, counted: &Counted) {
        let mut told = counted.moved();
        loop {
            match self.readable(progress_interval().as_millis() as u64) {
                Ok(true) => {}
                Ok(false) => {
                    let moved = counted.moved();
                    if moved != told && self.report(&Report::Progress { moved }).is_ok() {
                        told = moved;
                    }
                    continue;
                }
                Err(_) => return stop.request(),
            }
            match control::receive::<Order>(&self.control) {
                Ok(Some((Order::Lane, descriptors))) => {
                    // Where too many wait, the newest is closed: sessions take theirs at once.
                    for descriptor in descriptors {
                        let _ = self.lanes.0.try_send(TcpStream::from(descriptor));
                    }
                }
                Ok(Some((Order::Found { answer }, _))) => {
                    let _ = self.answers.0.try_send(answer);
                }
                Ok(Some((Order::Stop, _))) => stop.request(),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return stop.request(),
            }
        }
    }

    fn look_up(&self, question: Question) -> io::Result<Answer> {
        let _turn = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer that came too late for the question before is not this one's.
        while self.answers.1.try_recv().is_ok() {}
        self.report(&Report::Lookup { question })?;
        let answer = self.answers.1.recv_timeout(limits::ms(limits::CONTROL_ANSWER_TIMEOUT_MS));
        answer.map_err(|_| io::Error::other("the supervisor does not answer"))
    }
}

/// What the session takes further connections from.
pub(super) struct Lanes(Arc<Channel>);

impl LaneSource for Lanes {
    fn session(&self) -> SessionId {
        self.0.session
    }

    fn next(&self, deadline: Instant) -> Option<TcpStream> {
        self.0.lanes.1.recv_deadline(deadline).ok()
    }
}

/// Names of users and groups, asked of a process that may still read them.
struct NamesFromOutside(Arc<Channel>);

impl NamesFromOutside {
    fn id(&self, question: Question) -> io::Result<Option<u32>> {
        match self.0.look_up(question)? {
            Answer::Id(id) => Ok(id),
            _ => Err(io::Error::other("the name service failed")),
        }
    }

    fn name(&self, question: Question) -> io::Result<Option<Vec<u8>>> {
        match self.0.look_up(question)? {
            Answer::Name(name) => Ok(name),
            _ => Err(io::Error::other("the name service failed")),
        }
    }
}

impl NameService for NamesFromOutside {
    fn user_name(&self, uid: u32) -> io::Result<Option<Vec<u8>>> {
        self.name(Question::UserName(uid))
    }

    fn user_id(&self, name: &[u8]) -> io::Result<Option<u32>> {
        if name.len() > limits::NAME_BYTES_MAX { Ok(None) } else { self.id(Question::UserId(name.to_vec())) }
    }

    fn group_name(&self, gid: u32) -> io::Result<Option<Vec<u8>>> {
        self.name(Question::GroupName(gid))
    }

    fn group_id(&self, name: &[u8]) -> io::Result<Option<u32>> {
        if name.len() > limits::NAME_BYTES_MAX { Ok(None) } else { self.id(Question::GroupId(name.to_vec())) }
    }
}
