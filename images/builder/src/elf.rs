//! Reads what we need of 64-bit little-endian ELF files: where they end and single sections.

/// Why a file isn't read as ELF.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    /// Other magic, class or byte order.
    #[error("not a 64-bit little-endian ELF file")]
    NotElf,
    /// A header or section points outside the file.
    #[error("an offset at {at:#x} points outside the file")]
    OutOfRange { at: usize },
}

/// The offsets of the section table in the file's header.
const SECTION_TABLE_AT: usize = 0x28;
const SECTION_SIZE_AT: usize = 0x3a;
const SECTION_COUNT_AT: usize = 0x3c;
const NAMES_INDEX_AT: usize = 0x3e;

/// A file with a valid ELF header.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    sections: usize,
    section_size: usize,
    count: usize,
}

impl<'a> Elf<'a> {
    /// Checks the header and the bounds of the section table.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err(ElfError::NotElf);
        }
        let elf = Self {
            bytes,
            sections: offset(bytes, SECTION_TABLE_AT)?,
            section_size: usize::from(half(bytes, SECTION_SIZE_AT)?),
            count: usize::from(half(bytes, SECTION_COUNT_AT)?),
        };
        if elf.end() > bytes.len() {
            return Err(ElfError::OutOfRange { at: SECTION_TABLE_AT });
        }
        Ok(elf)
    }

    /// Where the section table ends, which linkers put last: bytes after it aren't part of the file.
    pub(crate) fn end(&self) -> usize {
        self.sections.saturating_add(self.count * self.section_size)
    }

    /// The contents of the section of that name, if there is one.
    pub(crate) fn section(&self, name: &str) -> Result<Option<&'a [u8]>, ElfError> {
        let names_index = usize::from(half(self.bytes, NAMES_INDEX_AT)?);
        let names = self.contents(names_index)?;
        for index in 0..self.count {
            let at = self.sections + index * self.section_size;
            let start =
                usize::try_from(word(self.bytes, at)?).map_err(|_| ElfError::OutOfRange { at })?;
            let found = names.get(start..).ok_or(ElfError::OutOfRange { at })?;
            if found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
                return self.contents(index).map(Some);
            }
        }
        Ok(None)
    }

    fn contents(&self, index: usize) -> Result<&'a [u8], ElfError> {
        let at = self.sections + index * self.section_size;
        let start = offset(self.bytes, at + 0x18)?;
        let length = offset(self.bytes, at + 0x20)?;
        start
            .checked_add(length)
            .and_then(|end| self.bytes.get(start..end))
            .ok_or(ElfError::OutOfRange { at })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ElfError> {
    let slice = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    slice.copied().ok_or(ElfError::OutOfRange { at })
}

fn half(bytes: &[u8], at: usize) -> Result<u16, ElfError> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, ElfError> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn offset(bytes: &[u8], at: usize) -> Result<usize, ElfError> {
    let value = u64::from_le_bytes(array(bytes, at)?);
    usize::try_from(value).map_err(|_| ElfError::OutOfRange { at })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An ELF file with one named section.
    pub(crate) fn with_section(name: &str, contents: &[u8]) -> Vec<u8> {
        let names = [b"\0", name.as_bytes(), b"\0"].concat();
        let names_at = 64 + contents.len();
        let table_at = names_at + names.len();
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x28..0x30].copy_from_slice(&(table_at as u64).to_le_bytes());
        file[0x3a] = 64;
        file[0x3c] = 2;
        file[0x3e] = 1;
        file.extend_from_slice(contents);
        file.extend_from_slice(&names);
        for (name_at, start, length) in [(1u32, 64, contents.len()), (0, names_at, names.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name_at.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(start as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        let file = with_section(".modinfo", b"name=virtio\0");
        let elf = Elf::parse(&file).unwrap();
        assert_eq!(elf.section(".modinfo").unwrap(), Some(b"name=virtio\0".as_slice()));
        assert_eq!(elf.section(".mod").unwrap(), None);
    }

    #[test]
    fn the_end_leaves_out_what_was_appended() {
        let mut file = with_section(".text", b"code");
        let length = file.len();
        file.extend_from_slice(b"relocations");
        assert_eq!(Elf::parse(&file).unwrap().end(), length);
    }

    proptest! {
        #[test]
        fn damaged_files_are_refused_but_never_crash(
            at in 0usize..200, value in any::<u8>(), cut in 0usize..250
        ) {
            let mut file = with_section(".modinfo", b"name=virtio\0");
            if let Some(byte) = file.get_mut(at) { *byte = value; }
            file.truncate(cut);
            if let Ok(elf) = Elf::parse(&file) {
                drop(elf.section(".modinfo"));
            }
        }
    }
}
