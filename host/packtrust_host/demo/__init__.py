"""The main job: a virtual pack from registration to sealed traffic, and the proof that it worked."""
