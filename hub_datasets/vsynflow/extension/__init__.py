"""Stage three: pairs of all seven tasks out of captioned videos (paper, section 3.2, multimodal task extension)."""
