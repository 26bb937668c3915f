//! What supervisor and worker say to each other: one JSON value a packet over a socket pair, descriptors beside.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::book::Refusal;
use crate::limits;
use crate::wire::SessionId;

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Serve the connection whose descriptor comes with this; the second descriptor holds a [`super::Served`].
    Start {
        /// What lanes of this session will name.
        session: SessionId,
        /// Who connected.
        peer: SocketAddr,
        /// What is left of the time to say who it is.
        deadline_ms: u64,
    },
    /// What was asked for may be done.
    Granted,
    /// It may not.
    Refused { why: Refusal },
    /// A further connection of this session, whose descriptor comes with this.
    Lane,
    /// What a name or number was looked up to be.
    Found { answer: Answer },
    /// End in order, now.
    Stop,
}

/// From a worker. It is believed in nothing that could harm another session.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The peer has proven to own `key` and is known here.
    Authenticated {
        /// Its text form.
        key: String,
        fingerprint: String,
        comment: String,
    },
    /// The peer asks for a module, and may have it as far as its key goes.
    Enter {
        module: String,
        /// `reads` or `writes` and the like.
        role: String,
        /// As the client wrote them, cut.
        paths: Vec<String>,
    },
    /// Please look this up.
    Lookup { question: Question },
    /// What was moved so far.
    Progress { moved: Moved },
    /// For the log.
    Note { text: String },
    /// The session is over. `failure`: why, where it did not end well.
    Ended { outcome: String, why: Option<Refusal>, failure: Option<String>, moved: Moved },
}

/// Totals of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Moved {
    /// Bytes from the client, over all connections.
    pub(super) in_bytes: u64,
    /// Bytes to the client.
    pub(super) out_bytes: u64,
    /// Files whose content was transferred.
    pub(super) files: u64,
    /// Items deleted.
    pub(super) deleted: u64,
    /// Items that failed.
    pub(super) problems: u64,
}

/// A question to the system's name service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    UserName(u32),
    GroupName(u32),
    UserId(Vec<u8>),
    GroupId(Vec<u8>),
}

/// The answer; `None` where there is none such.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Id(Option<u32>),
    Name(Option<Vec<u8>>),
    /// The name service failed: nothing is known.
    Failed,
}

/// Descriptors that one packet may carry.
const DESCRIPTORS_MAX: usize = 2;

/// Two ends of a control channel: packets keep their bounds and their descriptors.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one packet. Whether it waits for room is the socket's mode.
pub(super) fn send<T: Serialize>(socket: impl AsFd, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > limits::CONTROL_MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a control message is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for a control message"));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one packet with its descriptors; `None` when the other end is gone.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; limits::CONTROL_MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Ok(received) => received,
        // The other end died with packets of ours unread.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let descriptors: Vec<OwnedFd> = beside
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a control message was cut"));
    }
    let message = serde_json::from_slice(&bytes[..received.bytes])?;
    Ok(Some((message, descriptors)))
}

/// Cuts a text that a peer chose, so that it fits a control message.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn packets_keep_their_bounds_and_descriptors() {
        let (ours, theirs) = pair().unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        send(&ours, &Order::Lane, &[writer.as_fd()]).unwrap();
        send(&ours, &Order::Refused { why: Refusal::Key }, &[]).unwrap();
        writer.write_all(b"a").unwrap();
        drop(writer);
        let (order, descriptors) = receive::<Order>(&theirs).unwrap().unwrap();
        assert!(matches!(order, Order::Lane));
        let mut passed = std::fs::File::from(descriptors.into_iter().next().unwrap());
        passed.write_all(b"b").unwrap();
        drop(passed);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ab");
        let (order, descriptors) = receive::<Order>(&theirs).unwrap().unwrap();
        assert!(matches!(order, Order::Refused { why: Refusal::Key }) && descriptors.is_empty());
        drop(ours);
        assert!(receive::<Order>(&theirs).unwrap().is_none());
    }

    #[test]
    fn long_and_wrong_messages_are_refused() {
        let (ours, theirs) = pair().unwrap();
        let text = "x".repeat(limits::CONTROL_MESSAGE_BYTES_MAX);
        assert!(send(&ours, &Report::Note { text }, &[]).is_err());
        send(&ours, &"nonsense", &[]).unwrap();
        assert!(receive::<Report>(&theirs).is_err());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aäb", 2), "a…");
    }
}
