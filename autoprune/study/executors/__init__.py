"""Where trials run: in this process, in worker processes, on Ray, or on any executor of concurrent.futures."""
