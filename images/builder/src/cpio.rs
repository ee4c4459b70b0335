//! Writes `newc` cpio archives: what the kernel unpacks as initramfs.
//!
//! Each entry is a header of 110 ASCII bytes (magic and 13 numbers of 8 hex digits), its name, its contents; name and contents
//! are padded to 4 bytes. Owner is root, times are zero: equal inputs make equal bytes.

const MAGIC: &str = "070701";
const END: &str = "TRAILER!!!";

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

/// Why an entry could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CpioError {
    /// The format has 32-bit lengths.
    #[error("{name} is too long for cpio ({bytes} bytes)")]
    TooLong { name: String, bytes: usize },
}

/// An archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds a directory. Parents come first.
    pub(crate) fn directory(&mut self, name: &str) -> Result<(), CpioError> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file that its owner may execute.
    pub(crate) fn executable(&mut self, name: &str, contents: &[u8]) -> Result<(), CpioError> {
        self.entry(name, FILE | 0o755, (0, 0), contents)
    }

    /// Adds a plain file.
    pub(crate) fn file(&mut self, name: &str, contents: &[u8]) -> Result<(), CpioError> {
        self.entry(name, FILE | 0o644, (0, 0), contents)
    }

    /// Adds a character device.
    pub(crate) fn character_device(
        &mut self,
        name: &str,
        major: u32,
        minor: u32,
    ) -> Result<(), CpioError> {
        self.entry(name, CHARACTER | 0o600, (major, minor), &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, CpioError> {
        self.inode = 0;
        self.entry(END, 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
        contents: &[u8],
    ) -> Result<(), CpioError> {
        let length = |bytes: usize| {
            u32::try_from(bytes).map_err(|_| CpioError::TooLong { name: name.to_owned(), bytes })
        };
        let (uid, gid, links, time, device, check) = (0, 0, 1, 0, (0, 0), 0);
        let fields = [
            self.inode,
            mode,
            uid,
            gid,
            links,
            time,
            length(contents.len())?,
            device.0,
            device.1,
            major,
            minor,
            length(name.len() + 1)?,
            check,
        ];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
        self.inode += 1;
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_file() {
        let mut archive = Archive::default();
        archive.executable("init", b"#!").unwrap();
        let bytes = archive.finish().unwrap();
        let expected = concat!(
            "070701", "00000000", "000081ed", "00000000", "00000000", "00000001", "00000000",
            "00000002", "00000000", "00000000", "00000000", "00000000", "00000005", "00000000",
            "init\0\0", "#!\0\0",
        );
        assert!(bytes.starts_with(expected.as_bytes()));
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn devices_carry_their_numbers() {
        let mut archive = Archive::default();
        archive.directory("dev").unwrap();
        archive.character_device("dev/console", 5, 1).unwrap();
        let text = String::from_utf8(archive.finish().unwrap()).unwrap();
        let device = &text[text.rfind("00002180").unwrap()..];
        assert_eq!(&device[8 * 8..8 * 10], "0000000500000001");
        assert!(text.contains("000041ed"));
    }
}
