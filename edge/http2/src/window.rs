//! Flow control (RFC 9113 5.2, 6.9): how much a side may send.

use crate::wire::frame::MAX_31_BITS;

/// What we may send. It can fall below zero by a SETTINGS (RFC 9113 6.9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendWindow(i64);

impl SendWindow {
    pub(crate) fn new(bytes: u32) -> Self {
        Self(bytes.into())
    }

    /// Bytes that may be sent now.
    #[inline]
    pub(crate) fn open(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) {
        self.0 -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// Widens or narrows it. False: it is wider now than a window can be.
    pub(crate) fn change(&mut self, by: i64) -> bool {
        self.0 += by;
        self.0 <= i64::from(MAX_31_BITS)
    }
}

/// What the other side may send. It is widened again by halves, so that few frames say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecvWindow {
    /// Bytes that may come.
    left: u32,
    /// Bytes that came and are dealt with, which the other side has not been told.
    done: u32,
    size: u32,
}

impl RecvWindow {
    pub(crate) const fn new(size: u32) -> Self {
        Self { left: size, done: 0, size }
    }

    /// Bytes have come. False: more than were allowed.
    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        match u32::try_from(bytes).ok().and_then(|bytes| self.left.checked_sub(bytes)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Bytes that came are dealt with. Gives by how much to widen the window, if it is time to.
    #[inline]
    pub(crate) fn release(&mut self, bytes: usize) -> Option<u32> {
        self.done = self.done.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.done == 0 || self.done < self.size / 2 {
            return None;
        }
        let by = std::mem::take(&mut self.done);
        self.left += by;
        Some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_opens_again_above_zero_and_has_a_maximum() {
        let mut window = SendWindow::new(100);
        window.take(60);
        assert_eq!(window.open(), 40);
        assert!(window.change(-50));
        assert_eq!(window.open(), 0, "below zero");
        assert!(window.change(11));
        assert_eq!(window.open(), 1);
        assert!(window.change(i64::from(MAX_31_BITS) - 1));
        assert!(!window.change(1));
    }

    #[test]
    fn a_receive_window_is_widened_by_halves_and_never_beyond_its_size() {
        let mut window = RecvWindow::new(100);
        assert!(window.take(100) && !window.take(1));
        assert_eq!(window.release(49), None);
        assert!(!window.take(1), "not told yet");
        assert_eq!(window.release(1), Some(50));
        assert!(window.take(50) && !window.take(1));
        assert_eq!(window.release(0), None);
        assert_eq!(window.release(100), Some(100));
    }
}
