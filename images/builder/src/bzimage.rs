//! Takes the ELF `vmlinux` out of a `bzImage`.
//!
//! The setup header (Documentation/x86/boot.rst) says where the compressed payload is; its last four bytes are the decoded
//! length. Behind the ELF file come the relocations that the kernel's own decompressor would use; they are left out.

use crate::elf::{Elf, ElfError};
use crate::lz4::{self, Lz4Error};

const SETUP_SECTORS_AT: usize = 0x1f1;
const MAGIC_AT: usize = 0x202;
const VERSION_AT: usize = 0x206;
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;
/// The payload fields exist since this version of the boot protocol.
const VERSION_MIN: u16 = 0x0208;
/// Larger than any kernel; bounds the memory that a damaged length could ask for.
const DECODED_MAX: usize = 512 << 20;

/// Why no `vmlinux` could be extracted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtractError {
    /// No boot header of a version that tells the payload's place.
    #[error("not a bzImage of boot protocol 2.08 or later")]
    NotBzImage,
    /// The payload lies outside the file or is absurdly long.
    #[error("its payload fields are wrong")]
    Payload,
    /// The payload isn't compressed with LZ4, or is damaged.
    #[error("its payload cannot be decoded: {0}")]
    Compression(Lz4Error),
    /// What was decoded isn't a kernel.
    #[error("its payload holds no kernel: {0}")]
    Kernel(ElfError),
}

/// Extracts the kernel's ELF file.
///
/// # Errors
///
/// If `image` isn't a bzImage with an LZ4 payload that holds an ELF file.
pub(crate) fn extract_vmlinux(image: &[u8]) -> Result<Vec<u8>, ExtractError> {
    let payload = payload(image)?;
    let (frame, length) = payload.split_last_chunk::<4>().ok_or(ExtractError::Payload)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| ExtractError::Payload)?;
    if length > DECODED_MAX {
        return Err(ExtractError::Payload);
    }
    let mut kernel = lz4::decode_legacy(frame, length).map_err(ExtractError::Compression)?;
    let end = Elf::parse(&kernel).map_err(ExtractError::Kernel)?.end();
    kernel.truncate(end);
    Ok(kernel)
}

fn payload(image: &[u8]) -> Result<&[u8], ExtractError> {
    let version = image.get(VERSION_AT..).and_then(|rest| rest.first_chunk::<2>());
    let version = version.copied().map(u16::from_le_bytes).ok_or(ExtractError::NotBzImage)?;
    if image.get(MAGIC_AT..MAGIC_AT + 4) != Some(b"HdrS") || version < VERSION_MIN {
        return Err(ExtractError::NotBzImage);
    }
    // Zero means four, for kernels older than any that has a payload field.
    let sectors = match image[SETUP_SECTORS_AT] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + field(image, PAYLOAD_OFFSET_AT)?;
    let end = start + field(image, PAYLOAD_LENGTH_AT)?;
    image.get(start..end).ok_or(ExtractError::Payload)
}

fn field(image: &[u8], at: usize) -> Result<usize, ExtractError> {
    let bytes = image.get(at..).and_then(|rest| rest.first_chunk::<4>());
    let value = bytes.copied().map(u32::from_le_bytes).ok_or(ExtractError::Payload)?;
    usize::try_from(value).map_err(|_| ExtractError::Payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::with_section;

    /// A bzImage of one setup sector around the payload.
    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SETUP_SECTORS_AT] = 1;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"HdrS");
        image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    fn lz4_payload(contents: &[u8]) -> Vec<u8> {
        let block = lz4_flex::block::compress(contents);
        let length = u32::try_from(contents.len()).unwrap().to_le_bytes();
        let block_length = u32::try_from(block.len()).unwrap().to_le_bytes();
        [lz4::MAGIC.as_slice(), &block_length, &block, &length].concat()
    }

    #[test]
    fn the_kernel_comes_out_without_its_relocations() {
        let kernel = with_section(".text", &[0x90; 4096]);
        let payload = lz4_payload(&[kernel.as_slice(), b"relocations"].concat());
        assert_eq!(extract_vmlinux(&bzimage(&payload)).unwrap(), kernel);
    }

    #[test]
    fn other_compressions_are_named() {
        let payload = [b"\xfd7zXZ\0".as_slice(), &4u32.to_le_bytes()].concat();
        let error = extract_vmlinux(&bzimage(&payload)).unwrap_err().to_string();
        assert!(error.contains("no LZ4 legacy frame"), "{error}");
    }

    #[test]
    fn files_that_are_no_kernel_are_refused() {
        assert!(matches!(extract_vmlinux(b"MZ"), Err(ExtractError::NotBzImage)));
        assert!(matches!(extract_vmlinux(&[0; 2048]), Err(ExtractError::NotBzImage)));
        let mut cut = bzimage(&lz4_payload(b"x"));
        cut.truncate(1030);
        assert!(matches!(extract_vmlinux(&cut), Err(ExtractError::Payload)));
        let text = bzimage(&lz4_payload(b"not an ELF file, but long enough to be one"));
        assert!(matches!(extract_vmlinux(&text), Err(ExtractError::Kernel(_))));
    }
}
