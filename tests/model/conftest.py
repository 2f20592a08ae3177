"""Nothing but the place: its presence lets the modules beside it be imported."""
