"""HTTP for all other rooms: one client with its retries and limits, the policy of where requests may go, error translation."""
