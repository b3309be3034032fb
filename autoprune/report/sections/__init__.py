"""Views of a run as plain data, for the report and the dashboard. None of them knows HTML."""
