"""HTTP for the rest of the house: one client, its retries, its policy of where a request may go, and foreign errors made ours."""
