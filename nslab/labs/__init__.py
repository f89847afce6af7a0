"""Labs that a process of their own holds: brought up in one terminal, used from others and from notebooks.

    nslab up lab.yaml ── starts ──> nslab-lab NAME ── watchdog ── spawner      the holder: deploys, holds the descriptors
                                        │ socket in a folder of this user
    nslab exec, ping, down; nslab.attach ┘  get copies of the descriptors; their own spawner enters the namespaces

Nothing of what runs in a lab passes the holder: neither commands nor output nor terminals. It hears requests of one datagram,
in JSON, from processes of the same user, and nobody else's: not even root's, for whom it would be another user's data.
"""
