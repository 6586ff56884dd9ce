// Node-RED as a receiver: only its HTTP nodes, on a loopback port, telling nobody.
module.exports = {
    uiHost: "127.0.0.1",
    uiPort: Number(process.env.PORT),
    httpAdminRoot: false,
    telemetry: { enabled: false, updateNotification: false },
    flowFile: "flows.json",
    credentialSecret: false,
    logging: { console: { level: "warn", metrics: false, audit: false } },
};
