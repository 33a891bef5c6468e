// Preloaded into the suite's origin, which would listen on every interface: only loopback will do.
const { Server } = require('node:net')

const listen = Server.prototype.listen
Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, { host: '127.0.0.1', port: Number(port) }, ...rest)
}
