//! Joining of texts that a message holds in several pieces.

use std::borrow::Cow;

use super::{Content, Layout, Piece, Walk};

impl<'de> Walk<'_, 'de> {
    /// Removes the texts of a button or a link, and returns its label.
    pub(super) fn label(&mut self, start: usize) -> Cow<'de, str> {
        let mut label: Cow<'de, str> = Cow::default();
        let start = start.min(self.layout.pieces.len());
        let mut others = self.layout.pieces.split_off(start);
        others.retain_mut(|piece| match &mut piece.content {
            Content::Heading(text) | Content::Body(text) | Content::Cell(text) => {
                if label.is_empty() {
                    label = std::mem::take(text);
                }
                false
            }
            Content::Aside(_) | Content::Field { .. } | Content::Link { .. } => true,
        });
        self.layout.pieces.append(&mut others);
        label
    }

    /// Joins the elements of a rich text: one sentence may be many of them.
    pub(super) fn join(&mut self, start: usize) {
        let mut joined = String::new();
        let start = start.min(self.layout.pieces.len());
        let mut kept = Vec::new();
        // A link stays in the sentence, as mrkdwn, and is also kept as a piece, since it may be a
        // button or lead to the console.
        for piece in self.layout.pieces.drain(start..) {
            match &piece.content {
                Content::Heading(text) | Content::Body(text) | Content::Cell(text) => {
                    joined.push_str(text);
                    continue;
                }
                Content::Link { url, label, .. } if label.is_empty() => {
                    joined.extend(["<", url, ">"]);
                }
                Content::Link { url, label, .. } => joined.extend(["<", url, "|", label, ">"]),
                Content::Aside(_) | Content::Field { .. } => {}
            }
            kept.push(piece);
        }
        if !joined.is_empty() {
            self.push(Content::Body(Cow::Owned(joined)));
        }
        let room = Layout::MOST_PIECES.saturating_sub(self.layout.pieces.len());
        self.layout.pieces.extend(kept.into_iter().take(room));
    }

    /// Joins the two cells of a table's row, which are a heading and its value. The cells of a
    /// longer row stay apart: their headings are in another row, if anywhere.
    pub(super) fn join_cells(&mut self, start: usize) {
        let text = |piece: &Piece<'de>| {
            if let Content::Body(text) = &piece.content { Some(text.clone()) } else { None }
        };
        let cells = self.layout.pieces.iter().enumerate().skip(start);
        let cells: Vec<_> = cells.filter_map(|(at, piece)| Some((at, text(piece)?))).collect();
        let [(heading_at, heading), (value_at, value)] = cells.as_slice() else {
            return;
        };
        if let Some(piece) = self.layout.pieces.get_mut(*heading_at) {
            piece.content = Content::Body(Cow::Owned(format!("{heading}\n{value}")));
            self.layout.pieces.remove(*value_at);
        }
    }
}
