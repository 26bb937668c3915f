//! TUN devices: a network interface whose packets are read and written through a descriptor.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::error::{Context, Error, Result};

/// `struct ifreq` as TUNSETIFF reads it (linux/if.h, linux/if_tun.h): a name of 16 bytes, flags, padding to 40.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    padding: [u8; 22],
}

/// IP packets, not Ethernet frames.
const IFF_TUN: i16 = 0x0001;
/// No header before each packet.
const IFF_NO_PI: i16 = 0x1000;
/// `_IOW('T', 202, int)`.
const TUNSETIFF: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 202);

/// Makes the device `name`; it exists as long as the descriptor is open. Reading never waits.
pub(crate) fn open(name: &str) -> Result<File> {
    if !Path::new("/dev/net/tun").exists() {
        return Err(Error::Refused("this kernel has no TUN devices (/dev/net/tun): no WAN can be emulated".to_owned()));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/net/tun")
        .context(|| "open /dev/net/tun (this wants root)".to_owned())?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, padding: [0; 22] };
    if name.len() >= request.name.len() {
        return Err(Error::Refused(format!("`{name}` is too long for a network interface")));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    #[allow(unsafe_code, reason = "the one call that no crate in use offers: its argument has the layout of ifreq")]
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` of 40 bytes, which `request` is.
    let done = unsafe { rustix::ioctl::ioctl(&file, rustix::ioctl::Updater::<TUNSETIFF, _>::new(&mut request)) };
    done.context(|| format!("make the TUN device {name}"))?;
    Ok(file)
}
