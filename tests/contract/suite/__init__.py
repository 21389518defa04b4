"""The tests, by capability."""

from tests.contract.suite.account import Account as Account
from tests.contract.suite.addresses import Addresses as Addresses
from tests.contract.suite.disks import Disks as Disks
from tests.contract.suite.firewall import Firewall as Firewall
from tests.contract.suite.images import Images as Images
from tests.contract.suite.load_balancers import LoadBalancers as LoadBalancers
from tests.contract.suite.machines import Machines as Machines
from tests.contract.suite.networks import Networks as Networks
