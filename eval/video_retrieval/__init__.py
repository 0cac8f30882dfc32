"""The evaluate metric `video_retrieval`; this folder is also its Hub Space."""
